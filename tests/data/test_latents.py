"""Caches of latents: written whole or not at all, over nothing else, and read without trust."""

import io
import json
import os

import numpy as np
import pytest

from sid_jax import encode
from sid_jax.data.sources import latents as module
from sid_jax.data.sources.latents import check_free, write_cache
from sid_jax.data.sources.open import open_pairs
from sid_jax.errors import UserError

COUNT = 5
LATENTS = np.random.default_rng(0).normal(size=(COUNT, 2, 2, 4)).astype(np.float32)
ABOUT = {"source": "pairs", "autoencoder": "abc", "resolution": 16}


def batches(last=COUNT):
    for start in range(0, last, 2):
        rows = range(start, min(start + 2, COUNT))
        yield LATENTS[rows.start : rows.stop], [(str(row), "x") for row in rows]


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def cache(tmp_path):
    write_cache(tmp_path / "cache", batches(), COUNT, **ABOUT)
    return tmp_path / "cache"


def test_the_file_of_latents_is_an_array_of_as_many_as_there_are(cache):
    """Also where room was taken for more."""
    array = np.load(cache / "latents.npy")
    np.testing.assert_array_equal(array, LATENTS.astype(np.float16))
    write_cache(cache, batches(), COUNT + 100, **ABOUT)
    np.testing.assert_array_equal(np.load(cache / "latents.npy"), array)
    assert open_pairs(str(cache))[4].conditions == ("4", "x")


def test_latents_of_another_size_say_which(tmp_path):
    write_cache(tmp_path / "cache", batches(), COUNT, **ABOUT | {"resolution": (16, 24)})
    cache = open_pairs(str(tmp_path / "cache"))
    assert cache.encoded.resolution == (16, 24) and "5 at 16x24 px" in cache.name


def full_disk(*arguments):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("when", ["at the start", "later", "never so much"])
def test_a_full_disk_is_a_line_and_leaves_what_was_there(cache, monkeypatch, when):
    before = content(cache)

    def one_batch():
        yield next(batches())
        full_disk()

    if when == "at the start":
        monkeypatch.setattr(os, "posix_fallocate", full_disk)
    most = 10**15 if when == "never so much" else COUNT
    with pytest.raises(UserError, match=r"cache can't be written to: No space left|latents take .* MB are free"):
        write_cache(cache, one_batch(), most, **ABOUT)
    assert content(cache) == before and os.listdir(cache.parent) == ["cache"]
    with pytest.raises(UserError):
        write_cache(cache.with_name("other"), one_batch(), most, **ABOUT)
    assert os.listdir(cache.parent) == ["cache"]


def test_room_that_can_not_be_taken_beforehand_is_taken_later(tmp_path, monkeypatch):
    def not_supported(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", not_supported)
    assert write_cache(tmp_path / "cache", batches(), COUNT, **ABOUT) == COUNT


def test_no_image_that_can_be_used_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="no image can be used"):
        write_cache(tmp_path / "cache", iter(()), COUNT, **ABOUT)
    assert not os.listdir(tmp_path)


def test_only_a_cache_is_written_over(cache, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (cache, tmp_path / "empty", tmp_path / "not/there"):
        check_free(folder, "photos")
    images = tmp_path / "images"
    images.mkdir()
    (images / "captions.jsonl").write_text("mine")
    (cache / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("")
    for folder, source, problem in (
        (images, "photos", "files that are no cache of latents, such as captions.jsonl"),
        (cache, "photos", "such as notes.txt"),
        (images, str(images), "holds the images themselves"),
        (tmp_path, str(images / "captions.jsonl"), "holds the images themselves"),
        (tmp_path / "file", "photos", "is not a folder"),
        (tmp_path / ("x" * 5000), "photos", "can't be written to"),
    ):
        with pytest.raises(UserError, match=problem):
            check_free(folder, source)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--batch=0"], "--batch is 0: use a positive number"),
        (["--batch=-3"], "--batch is -3: use a positive number"),
        (["--out=gs://bucket/cache"], "must be on a disk"),
        (["--out={photos}"], "holds the images themselves"),
    ],
)
def test_what_the_command_refuses_before_it_reads_anything(tmp_path, flags, problem):
    (tmp_path / "0.png").write_bytes(b"")
    given = ["--config=configs/digits_1step_gan.py", f"--config.real.source={tmp_path}", f"--out={tmp_path / 'new'}"]
    with pytest.raises(UserError, match=problem):
        encode.main([*given, *(flag.format(photos=tmp_path) for flag in flags)])
    assert [file.name for file in tmp_path.iterdir()] == ["0.png"]


def npy(header, data=bytes(1000), version=b"\1\0"):
    return b"\x93NUMPY" + version + (len(header) + 1).to_bytes(2, "little") + header.encode() + b"\n" + data


def described(descr="'<f2'", by_columns="False", shape="(5, 2, 2, 4)"):
    return f"{{'descr': {descr}, 'fortran_order': {by_columns}, 'shape': {shape}, }}"


def pickled():
    file = io.BytesIO()
    np.save(file, np.array([{}]), allow_pickle=True)
    return file.getvalue()


DAMAGED = {
    "cache.json": [
        b"[]",
        b"\xff",
        b"[" * 100_000,
        json.dumps({**ABOUT, "count": "5"}).encode(),
        json.dumps({**ABOUT, "count": 10**12}).encode(),
        json.dumps({**ABOUT, "count": COUNT, "resolution": 1e400}).encode(),
    ],
    "captions.jsonl": [
        b"",
        b"\xff\n" * COUNT,
        b"[" * 100_000,
        b"[]\n" * COUNT,
        b'"a"\n' * COUNT,
        b'["a", 1]\n' * COUNT,
        b'["\\ud800"]\n' * COUNT,
    ],
    "latents.npy": [
        b"",
        pickled(),
        b"PK\3\4" + bytes(100),
        npy(described(), data=bytes(10)),
        npy(described("'|O'")),
        npy(described("'<f4'")),
        npy(described(by_columns="True")),
        npy(described(shape=f"(5, 2, 2, {2**62})")),
        npy(described(shape="(5, -2, -2, 4)")),
        npy(described(shape="(5L, 2, 2, 4)")),
        npy("(" * 9000),
        npy("-" * 9000),
        npy(described(), version=b"\7\0"),
    ],
}


@pytest.mark.parametrize(("name", "data"), [(name, data) for name, many in DAMAGED.items() for data in many])
def test_a_damaged_file_is_named(cache, name, data):
    (cache / name).write_bytes(data)
    with pytest.raises(UserError, match=r"is not a whole cache of latents .*: write it anew") as caught:
        open_pairs(str(cache))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["captions.jsonl", "latents.npy"])
def test_what_is_no_file_is_named(cache, name):
    for make in (os.mkfifo, lambda path: os.symlink("/dev/zero", path), lambda path: os.symlink(path, path)):
        (cache / name).unlink()
        make(cache / name)
        with pytest.raises(UserError, match=rf"is not a whole cache of latents .*{name}"):
            open_pairs(str(cache))


def test_what_is_cut_while_it_is_in_use_is_corrupted(cache):
    source = open_pairs(str(cache))
    os.truncate(cache / "latents.npy", 0)
    with pytest.raises(module.Corrupted, match="cut short"):
        source[0]


def test_captions_may_have_any_separator(cache):
    captions = [json.dumps([f"a\u2028b\x85{number}"], ensure_ascii=False) for number in range(COUNT)]
    (cache / "captions.jsonl").write_text("".join(f"{line}\r\n" for line in captions), newline="")
    assert open_pairs(str(cache))[2].conditions == ("a\u2028b\x852",)
