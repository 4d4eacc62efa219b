"""Data sets in the form of EDM's tools: of CIFAR-10's archives, of folders, and of tensorflow_datasets."""

import io
import json
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from sid_jax import dataset
from sid_jax.data.sources import cifar10
from sid_jax.data.sources.open import open_pairs
from sid_jax.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), np.uint8)
LABELS = [3, 9, 0, 1, 1, 4, 8, 2, 5, 7]


@pytest.fixture
def converted(tmp_path):
    """A function from a source and flags to the pixels and labels of the data set that the command makes of it."""

    def run(source, *flags, out="out.zip"):
        dataset.main([f"--source={source}", f"--out={tmp_path / out}", *flags])
        made = open_pairs(str(tmp_path / out), label="")
        pairs = [made[index] for index in range(len(made))]
        return np.stack([pixels(pair.image) for pair in pairs]), [pair.conditions[0] for pair in pairs]

    return run


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


def archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def planes(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def binary(path, changes=None):
    records = np.concatenate([np.array(LABELS, np.uint8)[:, None], planes(IMAGES)], axis=1)
    members = {
        f"cifar-10-batches-bin/data_batch_{n}.bin": records[2 * n - 2 : 2 * n].tobytes() for n in range(5, 0, -1)
    }
    members["cifar-10-batches-bin/test_batch.bin"] = b"not for training"
    return archive(path, members | (changes or {}))


def string(value):
    """As Python 2 pickles a str."""
    return (b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value))) + value


def batch_of_python_2(images, labels, reconstruct=b"cnumpy.core.multiarray\n_reconstruct\n", rows=None):
    """A batch as the authors' archive has it: protocol 2, an array of bytes, a list of ints."""
    state = b"(K\3" + string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    dtype = b"cnumpy\ndtype\n" + string(b"u1") + b"K\0K\1\x87R" + state
    shape = b"J" + struct.pack("<i", rows or len(images)) + b"M" + struct.pack("<H", 3072) + b"\x86"
    array = reconstruct + b"cnumpy\nndarray\nK\0\x85" + string(b"b") + b"\x87R"
    array += b"(K\1" + shape + dtype + b"\x89" + string(planes(images).tobytes()) + b"tb"
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return (
        b"\x80\2}q\1(" + string(b"batch_label") + string(b"training batch") + string(b"labels") + listed
        + string(b"data") + array + b"u."
    )  # fmt: skip


def python(path, changes=None):
    members = {
        f"cifar-10-batches-py/data_batch_{n}": batch_of_python_2(IMAGES[2 * n - 2 : 2 * n], LABELS[2 * n - 2 : 2 * n])
        for n in range(1, 6)
    }
    return archive(path, members | (changes or {}))


@pytest.mark.parametrize("make", [binary, python])
def test_cifar_10_in_the_order_of_its_batches(converted, tmp_path, make):
    images, labels = converted(make(tmp_path / "cifar.tar.gz"))
    np.testing.assert_array_equal(images, IMAGES)
    assert labels == LABELS


def test_the_files_are_named_and_listed_as_edm_does(converted, tmp_path):
    for out in ("a.zip", "b.zip", "folder"):
        converted(binary(tmp_path / "cifar.tar.gz"), out=out)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    names = [f"00000/img{number:08d}.png" for number in range(10)]
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        assert file.namelist() == [*names, "dataset.json"]
        for name in file.namelist():
            assert file.read(name) == (tmp_path / "folder" / name).read_bytes()
        assert json.loads(file.read("dataset.json")) == {"labels": [list(x) for x in zip(names, LABELS, strict=True)]}


def test_a_batch_that_says_more_than_it_has_is_refused_and_nothing_executed(converted, tmp_path, monkeypatch):
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "load", None)
    two = IMAGES[:2]
    for batch, problem in {
        batch_of_python_2(two, [1, 2], reconstruct=b"cos\nsystem\n"): "the global os system",
        batch_of_python_2(two, [1, 2], rows=2**30): "an array of 6144 bytes for 1073741824 images",
        batch_of_python_2(two, [1, 2, 3]): "labels is no list of 2 classes from 0 to 9",
        batch_of_python_2(two, [1, 10]): "labels is no list of 2 classes from 0 to 9",
        batch_of_python_2(two, [1, 2])[:-3000]: "cut off",
        b"\x80\2}.": "it needs the array data and the list labels",
        b"\x80\2K\1.": "it needs the array data and the list labels",
        b"": "cut off",
    }.items():
        changed = python(tmp_path / "cifar.tar.gz", {"cifar-10-batches-py/data_batch_2": batch})
        with pytest.raises(UserError, match=problem) as caught:
            converted(changed)
        assert "data_batch_2 is not a batch of CIFAR-10" in str(caught.value) and "\n" not in str(caught.value)
        assert not (tmp_path / "out.zip").exists()


def test_an_archive_that_is_none(converted, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "_MOST_BYTES", 2**20)
    whole = binary(tmp_path / "cifar.tar.gz").read_bytes()
    bad = tmp_path / "bad.tar.gz"
    for content, problem in (
        (whole[: len(whole) // 2], "not a whole .tar.gz file"),
        (whole[:-1], "not a whole .tar.gz file"),
        (b"no archive", "not a whole .tar.gz file"),
        (archive(bad, {"a": b""}).read_bytes(), "has neither cifar-10-batches-bin/data_batch_1.bin nor"),
        (binary(bad, {"cifar-10-batches-bin/data_batch_3.bin": b"x" * 100}).read_bytes(), "has 100 bytes"),
        (binary(bad, {"cifar-10-batches-bin/data_batch_3.bin": b"\xff" * 3073}).read_bytes(), "it has the class 255"),
        (archive(bad, {"a": bytes(2**22)}).read_bytes(), "unpacked it has more than the 1048576 bytes"),
    ):
        bad.write_bytes(content)
        with pytest.raises(UserError, match=problem) as caught:
            converted(bad)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="can't be read: No such file"):
        converted(tmp_path / "none.tar.gz")


def test_folders_are_classes_in_the_order_of_their_names(converted, tmp_path):
    """The middle square on whole pixels, then Lanczos' filter; grey repeated; EXIF's orientation left alone."""
    rng = np.random.default_rng(1)
    wide, tall = rng.integers(0, 256, (20, 31, 3), np.uint8), rng.integers(0, 256, (33, 16, 3), np.uint8)
    grey, turned = rng.integers(0, 256, (16, 16), np.uint8), Image.Exif()
    turned[0x0112] = 6
    save(wide, tmp_path / "in/n02/b.png")
    save(tall, tmp_path / "in/n02/a/z.png", exif=turned)
    save(grey, tmp_path / "in/n01/x.png")
    (tmp_path / "in/n03").mkdir()
    (tmp_path / "in/notes.txt").write_text("no image")
    images, labels = converted(tmp_path / "in", "--resolution=8")
    assert labels == [0, 1, 1]  # n01/x, n02/a/z, n02/b
    for image, square in zip(images, (np.stack([grey] * 3, -1), tall[8:24], wide[:, 5:25]), strict=True):
        expected = Image.fromarray(square).resize((8, 8), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(image, np.asarray(expected))
    _, labels = converted(tmp_path / "in", "--resolution=8", "--no-labels", out="without.zip")
    assert labels == [-1, -1, -1]
    assert json.loads(zipfile.ZipFile(tmp_path / "without.zip").read("dataset.json")) == {"labels": None}


def test_a_flat_folder_and_one_with_labels_of_its_own(converted, tmp_path):
    for number in range(3):
        save(IMAGES[number], tmp_path / f"in/{number}.png")
    images, labels = converted(tmp_path / "in", out="flat.zip")
    np.testing.assert_array_equal(images, IMAGES[:3])
    assert labels == [-1] * 3
    (tmp_path / "in/dataset.json").write_text(json.dumps({"labels": [[f"{n}.png", 5 - n] for n in range(3)]}))
    assert converted(tmp_path / "in", "--resolution=16", out="own.zip")[1] == [5, 4, 3]
    assert converted(tmp_path / "own.zip", "--resolution=8", out="again")[0].shape == (3, 8, 8, 3)


def test_what_can_not_be_converted_leaves_nothing(converted, tmp_path):
    save(IMAGES[0], tmp_path / "in/a/0.png")
    save(IMAGES[1][:30], tmp_path / "in/b/1.png")
    with pytest.raises(UserError, match=r"image 1 has 32x30 pixels: give a resolution for all"):
        converted(tmp_path / "in")
    (tmp_path / "in/b/2.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"image 2 can't be used: .*; mend it, or remove it"):
        converted(tmp_path / "in", "--resolution=8", out="folder")
    save(IMAGES[0], tmp_path / "in/loose.png")
    with pytest.raises(UserError, match=r"^--source .*: 'loose.png' is in no folder of a class"):
        converted(tmp_path / "in", "--resolution=8")
    with pytest.raises(UserError, match=r"^--source .*/none is not a folder"):
        converted(tmp_path / "none")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    with pytest.raises(UserError, match="--resolution is 0"):
        converted(tmp_path / "in", "--resolution=0")
    with pytest.raises(UserError, match="in is a folder with something in it"):
        converted(tmp_path / "in", out="in")
    (tmp_path / "there.zip").write_bytes(b"of mine")
    with pytest.raises(UserError, match=r"there\.zip is there already"):
        converted(tmp_path / "in", out="there.zip")


def test_a_full_disk_is_said_before_anything_is_written(converted, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    save(IMAGES[0], tmp_path / "in/0.png")
    for out in ("out.zip", "out"):
        with pytest.raises(UserError, match=r"needs 12\.6 kB, and 1\.0 kB are free there"):
            converted(tmp_path / "in", "--resolution=64", out=out)
