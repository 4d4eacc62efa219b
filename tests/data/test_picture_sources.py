"""Pictures of a measurement, from each kind of place, as they are in their files."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from sid_jax.data.sources.pictures import natural_order, open_pictures
from sid_jax.errors import UserError
from sid_jax.evaluation.pictures import read_picture

NAMES = ["1.png", "2.JPG", "10.png", "a/3.png", "b.webp"]
PIXELS = np.random.default_rng(0).integers(0, 256, (len(NAMES), 9, 5, 3), np.uint8)


def encoded(pixels, name, **options):
    kind = {"JPG": "JPEG", "png": "PNG", "webp": "WEBP"}[name.rpartition(".")[2]]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


FILES = {name: encoded(pixels, name) for name, pixels in zip(NAMES, PIXELS, strict=True)}
OTHERS = {"captions.txt": b"one", "._1.png": b"what a Mac keeps"}


def folder(path, files):
    for name, data in files.items():
        (path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "photos" / name).write_bytes(data)
    return path / "photos"


def packed(path, files):
    with zipfile.ZipFile(path / "photos.zip", "w") as file:
        for name, data in reversed(files.items()):
            file.writestr(name, data)
    return path / "photos.zip"


def shards(path, files):
    for number in range(2):
        with tarfile.open(path / f"s{number}.tar", "w") as file:
            for name, data in list(files.items())[3 * number :][: 3 if number == 0 else None]:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
    return path / "s*.tar"


@pytest.mark.parametrize("make", [folder, packed, shards])
def test_each_kind_of_place(tmp_path, make):
    pictures = open_pictures(str(make(tmp_path, FILES | OTHERS)), "--images")
    assert [name.partition("tar/")[2] or name for name in pictures.names] == NAMES
    for index, (name, data) in enumerate(FILES.items()):
        assert pictures.read(index) == data
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(read_picture(pictures, index), expected), name


@pytest.mark.parametrize("make", [folder, packed, shards])
def test_the_digest_says_which_pictures_they_are(tmp_path, make):
    found = []
    for number, files in enumerate((FILES, FILES, dict(list(FILES.items())[1:]), FILES | {"1.png": b"changed"})):
        (tmp_path / str(number)).mkdir()
        found.append(open_pictures(str(make(tmp_path / str(number), files)), "--images").digest())
    assert found[0] == found[1] and len(set(found)) == 3


def test_the_natural_order_of_names():
    names = ["b1/2.png", "b1/10.png", "b10/1.png", "b2/1.png", "x.png", "7", "x007.png", "x7.png", "x7a.png", "x07.png"]
    assert sorted(names, key=natural_order) == [
        "7", "b1/2.png", "b1/10.png", "b2/1.png", "b10/1.png", "x007.png", "x07.png", "x7.png", "x7a.png", "x.png",
    ]  # fmt: skip


def test_a_picture_is_not_turned_and_loses_no_edge(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    place = folder(tmp_path, {"a.png": encoded(PIXELS[0], "a.png", exif=exif)})
    assert np.array_equal(read_picture(open_pictures(str(place), ""), 0), PIXELS[0])


def test_a_damaged_picture_is_an_error_that_names_it(tmp_path):
    pictures = open_pictures(str(folder(tmp_path, {"a.png": b"damaged"})), "--images")
    with pytest.raises(UserError, match=r"a\.png can't be used"):
        read_picture(pictures, 0)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("absent", "--images .*absent is not a folder"),
        ("absent.zip", "absent.zip can't be read: No such file"),
        ("*.tar", r"--images .*\*.tar: there is no such file"),
        ("empty", "--images .*empty: no image in it"),
        ("tfds:coco_captions", "write tfds:NAME:SPLIT"),
        ("tfds:coco_captions/2014:1.1.0", "write tfds:NAME:SPLIT"),
    ],
)
def test_no_pictures(tmp_path, place, reason):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=reason):
        open_pictures(place if ":" in place else str(tmp_path / place), "--images")


def test_a_picture_of_a_format_that_is_not_read_is_not_left_out(tmp_path):
    place = folder(tmp_path, FILES | {"c.bmp": b""})
    with pytest.raises(UserError, match=r"c\.bmp: pictures are read as PNG, JPEG or WebP"):
        open_pictures(str(place), "--images")
