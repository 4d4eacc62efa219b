"""Folders of images as strangers write them."""

import json
import logging
import os

import pytest
from etils import epath

from sid_jax.data.captions import Texts
from sid_jax.data.images import Corrupted
from sid_jax.data.sources.open import open_pairs
from sid_jax.errors import UserError


@pytest.fixture
def opened(tmp_path):
    """A function from the bytes of a metadata.jsonl to the pairs of a folder with 0.png, 1.png and 2.png."""
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"%d" % number)

    def make(metadata):
        (tmp_path / "metadata.jsonl").write_bytes(metadata)
        source = open_pairs(str(tmp_path))
        return {source[index].image: source[index].conditions for index in range(len(source))}

    return make


def lines(*records):
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def test_all_captions_of_an_image_in_the_order_of_their_lines(opened):
    """Those of several lines, of a list, and of both."""
    found = opened(
        lines(
            {"file_name": "1.png", "text": "a"},
            {"file_name": "0.png", "text": ["b", "c"]},
            {"file_name": "1.png", "caption": "d"},
            {"file_name": "2.png", "text": None, "caption": "e"},
            {"file_name": "1.png", "text": ["f", "g"]},
        )
    )
    assert found == {b"0": ("b", "c"), b"1": ("a", "d", "f", "g"), b"2": ("e",)}


@pytest.mark.parametrize("character", ["\u2028", "\x85", "\u2029", "\x0c", "\x1c", "\x0b"])
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_only_a_line_feed_ends_a_line(opened, character, end):
    caption = f"one{character}two"
    record = json.dumps({"file_name": "1.png", "text": caption}, ensure_ascii=character < " ")
    assert opened(f"\ufeff{record}\r\n\n{record}{end}".encode()) == {b"1": (caption, caption)}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"file_name": "1.png", "text": "\xff"}', "not valid JSON .'utf-8'"),
        ('{"file_name": "1.png", "text": "x"}'.encode("utf-16"), "not valid JSON .'utf-8'"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a":' * 100_000, "not valid JSON"),
        (b'{"file_name": "1.png", "text": "\\ud800"}', "half of a surrogate pair"),
        (b'{"file_name": "1.png", "text": []}', "no string 'text' or 'caption'"),
        (b'{"file_name": "1.png", "text": ["x", 1]}', "no string 'text' or 'caption'"),
        (lines({"file_name": "1\0.png", "text": "x"}), r"no image can have the name '1\\\\x00.png'"),
        (b'{"file_name": "\\ud800", "text": "x"}', "no image can have the name"),
        (lines({"file_name": "x" * 5000, "text": "x"}), "no image can have the name"),
        (lines({"file_name": "x/" * 2500, "text": "x"}), "no image can have the name"),
        (lines({"file_name": "", "text": "x"}), "no image can have the name"),
        (lines({"file_name": "..", "text": "x"}), "is outside the folder"),
        (lines({"file_name": "out/..", "text": "x"}), "is outside the folder"),
        (lines({"file_name": "link.png", "text": "x"}), "is outside the folder"),
        (lines({"file_name": "loop/x", "text": "x"}), "is outside the folder"),
        (lines({"file_name": "out/x", "text": "x"}), "is outside the folder"),
        (b" " * 2**20 + b" ", "line 2 is too large: at most 1048576 bytes are read"),
    ],
)
def test_a_line_of_a_stranger_is_refused_in_one(opened, tmp_path, line, problem):
    (tmp_path / "out").symlink_to(tmp_path.parent)
    (tmp_path / "link.png").symlink_to(tmp_path.parent / "0.png")
    (tmp_path / "loop").symlink_to(tmp_path.parent / "loop", target_is_directory=True)
    with pytest.raises(UserError, match=problem) as caught:
        opened(lines({"file_name": "1.png", "text": "x"}) + line)
    assert "line 2" in str(caught.value) and str(caught.value).isprintable() and len(str(caught.value)) < 1000


def test_a_metadata_file_that_is_none(tmp_path):
    for make in (os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/zero", path), lambda path: os.symlink("no", path)):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "0.png").write_bytes(b"")
        (folder / "0.txt").write_text("with a caption beside it")
        make(folder / "metadata.jsonl")
        with pytest.raises(UserError, match=r"metadata\.jsonl: (is a|no such file)"):
            open_pairs(str(folder))


def test_images_that_are_not_there_are_counted(opened, tmp_path, caplog):
    with caplog.at_level(logging.WARNING), pytest.raises(Corrupted, match=r"4\.png: no such file"):
        opened(lines({"file_name": "1.png", "text": "x"}, {"file_name": "4.png", "text": "x"}))
    assert "1 of its 2 images are not there, such as 4.png" in caplog.text
    with pytest.raises(UserError, match=r"none of its 1 images is there, such as 4\.png"):
        opened(lines({"file_name": "4.png", "text": "x"}))


def test_pipes_devices_and_endless_captions_are_left_out(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(b"")
        (tmp_path / f"{number}.txt").write_text("x")
    (tmp_path / "0.png").unlink()
    os.mkfifo(tmp_path / "0.png")
    (tmp_path / "1.txt").unlink()
    (tmp_path / "1.txt").symlink_to("/dev/zero")
    os.truncate(tmp_path / "2.txt", 2**40)
    os.truncate(tmp_path / "3.png", 2**40)
    source = open_pairs(str(tmp_path))
    for index, problem in enumerate(("a named pipe", "a device", "too large", "too large")):
        with pytest.raises(Corrupted, match=problem):
            source[index]


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "a/b").mkdir(parents=True)
    kind = type(epath.Path(tmp_path))
    listed = kind.iterdir

    def iterdir(folder):
        if folder.name == "b":
            raise PermissionError(13, "Permission denied")  # root may read everything
        return listed(folder)

    monkeypatch.setattr(kind, "iterdir", iterdir)
    with pytest.raises(UserError, match=r"a/b: the folder can't be read \(Permission denied\)"):
        open_pairs(str(tmp_path))


@pytest.mark.parametrize("name", ["a\0b", "a\ud800", "x" * 5000, "loop/x", "file/x", "file"])
def test_no_such_folder(tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"is not a folder|can't be opened") as caught:
        open_pairs(f"{tmp_path}/{name}")
    assert str(caught.value).isprintable()


def test_names_that_are_not_utf8_are_read(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff"
    for suffix in (b".png", b".txt"):
        with open(name + suffix, "wb") as file:
            file.write(suffix)
    assert open_pairs(str(tmp_path))[0] == (b".png", (".txt",))


def test_many_texts_take_their_bytes():
    texts = Texts(f"caption {number} \u732b" for number in range(1000))
    assert len(texts) == 1000 and texts[999] == "caption 999 \u732b" and texts[3:5] == [texts[3], texts[4]]
    assert list(texts)[-1] == texts[-1] and not Texts([])
    with pytest.raises(IndexError):
        texts[1000]
    assert len(texts._data) < 16_000
