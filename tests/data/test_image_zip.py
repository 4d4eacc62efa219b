"""Zip files and folders of images with labels, as EDM's tools make them and as strangers do."""

import contextlib
import io
import json
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from sid_jax.data.images import MOST_BYTES, Corrupted, decode
from sid_jax.data.sources import zip_members
from sid_jax.data.sources.open import open_pairs
from sid_jax.errors import UserError

COUNT = 12
NAMES = [f"{number // 5:05d}/img{number:08d}.png" for number in range(COUNT)]
LABELS = [number % 4 for number in range(COUNT)]


def picture(number):
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(file, "PNG")
    return file.getvalue()


def written(path, labels="right", packing=zipfile.ZIP_STORED, more=()):
    """A zip whose members are in no order, and whose labels are in another."""
    with zipfile.ZipFile(path, "w", packing) as file:
        for number in np.random.default_rng(0).permutation(COUNT):
            file.writestr(NAMES[number], picture(number))
        if labels == "right":
            labels = {"labels": [[NAMES[number], LABELS[number]] for number in reversed(range(COUNT))]}
        if labels is not None:
            file.writestr("dataset.json", labels if isinstance(labels, bytes) else json.dumps(labels))
        for name, content in more:
            file.writestr(name, content)
    return str(path)


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_images_are_in_the_order_of_their_names_with_their_labels(tmp_path, packing):
    source = open_pairs(written(tmp_path / "a.zip", packing=packing), label="")
    assert len(source) == COUNT and source.classes == 4
    assert [source[index] for index in range(COUNT)] == [(picture(n), (LABELS[n],)) for n in range(COUNT)]
    np.testing.assert_array_equal(decode(source[3].image, 8, 100), np.full((8, 8, 3), 60, np.uint8))

    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        file.extractall(tmp_path / "folder")
    folder = open_pairs(str(tmp_path / "folder"), label="")
    assert [folder[index] for index in range(COUNT)] == [source[index] for index in range(COUNT)]


@pytest.mark.parametrize("labels", [None, {"labels": None}])
def test_images_without_labels(tmp_path, labels):
    source = open_pairs(written(tmp_path / "a.zip", labels), label="")
    assert source.classes == 0 and source[COUNT - 1] == (picture(COUNT - 1), (-1,))


def test_other_labels_and_other_images_have_another_name(tmp_path):
    names = {open_pairs(written(tmp_path / "a.zip", labels)).name for labels in ("right", None)}
    assert len(names) == 2 and open_pairs(written(tmp_path / "a.zip")).name in names
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in NAMES:
            file.writestr(name, b"other")
    assert open_pairs(str(tmp_path / "a.zip")).name not in names


def test_a_directory_in_64_bits(tmp_path, monkeypatch):
    """As of more than 65,535 members, or of more than 4 GB."""
    for name, value in (("ZIP_FILECOUNT_LIMIT", 3), ("ZIP64_LIMIT", 100)):
        monkeypatch.setattr(zipfile, name, value)
    source = open_pairs(written(tmp_path / "a.zip"))
    assert b"PK\6\6" in (tmp_path / "a.zip").read_bytes()
    assert [source[index].image for index in range(COUNT)] == [picture(n) for n in range(COUNT)]


def right(count=COUNT):
    return [[NAMES[number], LABELS[number]] for number in range(count)]


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (b"[1", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        ([], r'write {"labels": \[\[name, class\], ...\]}'),
        ({}, r'write {"labels": \[\[name, class\], ...\]}'),
        ({"labels": {"a.png": 1}}, r'write {"labels": \[\[name, class\], ...\]}'),
        ({"labels": right(COUNT - 1)}, f"it has no label for '{NAMES[-1]}'"),
        ({"labels": [*right(), [NAMES[0], 0]]}, f"'{NAMES[0]}' is there twice"),
        ({"labels": [*right(), [NAMES[0]]]}, "entry 12 is .*: write"),
        ({"labels": [*right(), "x" * 10**6]}, "entry 12 is .*: write"),
        ({"labels": [[NAMES[0], -1]]}, "the label of .* is -1: write a class, 0 or more"),
        ({"labels": [[NAMES[0], 1.0]]}, "the label of .* is 1.0: write a class"),
        ({"labels": [[NAMES[0], True]]}, "the label of .* is True: write a class"),
        ({"labels": [[NAMES[0], [0, 1]]]}, r"the label of .* is \[0, 1\]: write a class"),
        ({"labels": [[NAMES[0], 10**30]]}, "the label of .* is 1000000.*: write a class"),
    ],
)
def test_labels_of_a_stranger_are_refused_in_one_line(tmp_path, labels, problem):
    with pytest.raises(UserError, match=problem) as caught:
        open_pairs(written(tmp_path / "a.zip", labels))
    assert "dataset.json" in str(caught.value) and str(caught.value).isprintable() and len(str(caught.value)) < 600


def test_labels_of_images_that_are_not_there_are_counted(tmp_path, caplog):
    open_pairs(written(tmp_path / "a.zip", {"labels": [*right(), ["no.png", 4]]}))
    assert "1 of its 13 images are not there" in caplog.text


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/../../x.png", "a\\x.png"])
def test_a_member_whose_name_leads_out(tmp_path, name):
    with pytest.raises(UserError, match="leads out of the archive"):
        open_pairs(written(tmp_path / "a.zip", more=[(name, b"")]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(tmp_path):
    with pytest.raises(UserError, match=r"member '00000/img00000000\.png' is there twice"):
        open_pairs(written(tmp_path / "a.zip", more=[(NAMES[0], b"")]))


def test_what_is_no_zip_or_no_whole_one(tmp_path):
    written(tmp_path / "a.zip")
    whole = (tmp_path / "a.zip").read_bytes()
    bad = tmp_path / "bad.zip"
    for cut in (*range(0, len(whole), 97), len(whole) - 1):
        bad.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"bad\.zip is (not a whole zip file|an empty file)") as caught:
            open_pairs(str(bad))
        assert "\n" not in str(caught.value)
    bad.write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match="a page of a website"):
        open_pairs(str(bad))
    with pytest.raises(UserError, match=r"none\.zip can't be read: No such file"):
        open_pairs(str(tmp_path / "none.zip"))
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(UserError, match="is a named pipe"):
        open_pairs(str(tmp_path / "pipe.zip"))
    with pytest.raises(UserError, match="no image in it"):
        with zipfile.ZipFile(tmp_path / "none.zip", "w") as file:
            file.writestr("a.txt", "")
        open_pairs(str(tmp_path / "none.zip"))


def test_damage_anywhere_is_a_line_or_a_corrupted_image(tmp_path):
    """Whatever byte is changed: nothing else is raised, and no other image comes out for one."""
    written(tmp_path / "a.zip", packing=zipfile.ZIP_DEFLATED)
    whole = bytearray((tmp_path / "a.zip").read_bytes())
    good, bad, rng = {picture(n) for n in range(COUNT)}, tmp_path / "bad.zip", np.random.default_rng(1)
    for _ in range(300):
        damaged = whole.copy()
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(256)
        bad.write_bytes(damaged)
        try:
            source = open_pairs(str(bad))
        except UserError as error:
            assert str(error).isprintable()
            continue
        for index in range(len(source)):
            with contextlib.suppress(Corrupted):
                assert source[index].image in good


def of_one_member(path, content, **changes):
    """A zip of one member whose directory says what it is told to."""
    deflated = zlib.compress(content)[2:-4]
    says = {
        "method": 8,
        "flags": 0,
        "crc": zlib.crc32(content),
        "packed": len(deflated),
        "size": len(content),
    } | changes
    name = b"a.png"
    header = struct.pack("<4sHHHLLLLHH", b"PK\3\4", 20, 0, 8, 0, 0, 0, 0, len(name), 0) + name
    entry = struct.pack(
        "<4sHHHHLLLLHHHHHLL", b"PK\1\2", 20, 20, says["flags"], says["method"], 0, says["crc"], says["packed"],
        says["size"], len(name), 0, 0, 0, 0, 0, says.get("begin", 0),
    ) + name  # fmt: skip
    begin = len(header) + len(deflated)
    end = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 1, says.get("count", 1), len(entry), begin, 0)
    path.write_bytes(header + deflated + entry + end)
    return str(path)


def test_a_bomb_takes_no_memory(tmp_path):
    zeros = bytes(2**22)
    source = open_pairs(of_one_member(tmp_path / "a.zip", zeros, size=1000))
    with pytest.raises(Corrupted, match="its content is not what its checksum says"):
        source[0]
    source = open_pairs(of_one_member(tmp_path / "a.zip", zeros, size=MOST_BYTES + 1))
    with pytest.raises(Corrupted, match=f"{MOST_BYTES + 1} bytes are more than {MOST_BYTES}"):
        source[0]
    assert len(zip_members.ZipMembers(of_one_member(tmp_path / "a.zip", zeros)).read(0, 2**23)) == 2**22


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        ({"flags": 1}, "member 'a.png' is encrypted"),
        ({"method": 14}, "member 'a.png' is packed by method 14"),
        ({"method": 0}, "member 'a.png' is not where the directory says"),
        ({"begin": 10**6}, "member 'a.png' is not where the directory says"),
        ({"count": 2}, "it is one of several parts"),
    ],
)
def test_what_a_directory_says(tmp_path, says, problem):
    with pytest.raises(UserError, match=problem):
        open_pairs(of_one_member(tmp_path / "a.zip", b"x" * 100, **says))
