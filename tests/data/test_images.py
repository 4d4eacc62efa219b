"""Pictures of strangers: what is decoded, and what is refused before it costs memory."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sid_jax.data.images import Corrupted, decode


def encoded(array, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def gradient(height, width):
    return np.broadcast_to(np.linspace(0, 255, width, dtype=np.uint8)[None, :, None], (height, width, 3)).copy()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(("height", "width"), [(40, 40), (40, 90), (90, 40), (8, 8)])
def test_the_middle_square_is_resized(kind, height, width):
    image = decode(encoded(gradient(height, width), kind), 16, 10**6)
    assert image.shape == (16, 16, 3) and image.dtype == np.uint8
    side = min(height, width)
    left = 255 * (width - side) / 2 / width
    assert abs(int(image[8, 0, 0]) - left) < 20 and abs(int(image[8, -1, 0]) - (255 - left)) < 20


def test_an_image_of_the_size_is_not_touched():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    np.testing.assert_array_equal(decode(encoded(image), 32, 10**6), image)


def test_grey_palette_and_transparent_images_become_rgb():
    grey = np.full((9, 9), 77, np.uint8)
    np.testing.assert_array_equal(decode(encoded(grey), 4, 100), np.full((4, 4, 3), 77))
    palette = io.BytesIO()
    Image.fromarray(grey).convert("P").save(palette, "PNG")
    assert decode(palette.getvalue(), 4, 100).shape == (4, 4, 3)
    assert decode(encoded(np.zeros((9, 9, 4), np.uint8)), 4, 100).shape == (4, 4, 3)


def bomb(width, height):
    """A PNG of a hundred bytes that says that it is huge."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (2**31 - 1, 1), (1001, 1000)])
def test_the_size_is_checked_before_anything_is_decoded(width, height, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(Corrupted, match=r"pixels|Bomb"):
        decode(bomb(width, height), 16, 10**6)


def test_a_very_long_image_is_cut_before_it_is_resized():
    assert decode(encoded(gradient(1, 50_000)), 64, 10**6).shape == (64, 64, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image",
        encoded(gradient(64, 64))[:90],
        encoded(gradient(64, 64), "JPEG")[:300],
        encoded(gradient(9, 9), "GIF"),
    ],
    ids=["empty", "text", "cut png", "cut jpeg", "gif"],
)
def test_what_is_no_whole_image_is_corrupted(data):
    with pytest.raises(Corrupted):
        decode(data, 16, 10**6)
