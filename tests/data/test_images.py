"""Pictures of strangers: what is decoded, and what is refused before it costs memory."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sid_jax.data import images
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


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_16_bits(array, colors, *more):
    """A PNG of an array uint16 `[H, W]` or `[H, W, C]`, which Pillow can't write in colour."""
    height, width = array.shape[:2]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colors, 0, 0, 0))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


RAMP = np.linspace(0, 2**16 - 1, 64).astype(np.uint16)[None].repeat(64, 0)


@pytest.mark.parametrize(
    "data",
    [
        png_of_16_bits(RAMP, 0),
        png_of_16_bits(RAMP, 0, chunk(b"tRNS", b"\0\0")),
        png_of_16_bits(np.stack([RAMP, RAMP], -1), 4),
        png_of_16_bits(np.stack([RAMP] * 3, -1), 2),
        png_of_16_bits(np.stack([RAMP] * 4, -1), 6),
        png_of_16_bits(
            RAMP.T[:, ::-1], 0, chunk(b"eXIf", b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 274, 3, 1, 8, 0))
        ),
    ],
    ids=["grey", "one grey transparent", "grey and alpha", "rgb", "rgba", "grey and turned"],
)
def test_16_bits_are_the_same_ramp_in_8(data):
    expected = (RAMP >> 8).astype(np.uint8)[..., None].repeat(3, -1)
    np.testing.assert_array_equal(decode(data, 64, 10**6), expected)


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16B"])
def test_modes_of_more_bits_become_8(mode):
    """Whichever of them a version of Pillow chooses for a file."""
    kind = {"I": np.int32, "I;16": np.dtype("<u2"), "I;16B": np.dtype(">u2")}[mode]
    image = Image.frombytes(mode, (64, 64), RAMP.astype(kind).tobytes())
    assert image.mode == mode
    np.testing.assert_array_equal(np.asarray(images._in_8_bits(image)), RAMP >> 8)


def test_pixels_of_no_known_range_are_refused():
    with pytest.raises(Corrupted, match="pixels of Pillow's type F"):
        images._in_8_bits(Image.new("F", (2, 2)))


def test_other_modes_are_what_they_look_like():
    """Palettes with transparent colours (of which Pillow warns), one bit, alpha, CMYK."""
    rgb = Image.new("RGB", (4, 4), (255, 0, 10))
    palette, bit, alpha, cmyk = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    rgb.quantize(2).save(palette, "PNG", transparency=bytes([0, 128]))
    Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1").save(bit, "PNG")
    Image.fromarray(np.array([[[9, 0]]], np.uint8)).save(alpha, "PNG")
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(cmyk, "JPEG")
    assert decode(palette.getvalue(), 2, 100)[0, 0].tolist() == [255, 0, 10]
    np.testing.assert_array_equal(decode(bit.getvalue(), 2, 100)[..., 0], [[0, 255], [255, 0]])
    assert decode(alpha.getvalue(), 1, 100)[0, 0].tolist() == [9, 9, 9]
    assert np.abs(decode(cmyk.getvalue(), 8, 100)[0, 0].astype(int) - [255, 0, 0]).max() < 5


def bomb(width, height):
    """A PNG of a hundred bytes that says that it is huge."""
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


@pytest.mark.parametrize(("height", "width", "left", "top"), [(40, 40, 0, 10), (40, 100, 10, 0), (90, 40, 0, 35)])
def test_the_middle_part_of_other_proportions_is_resized(height, width, left, top):
    """Twice as wide as high, from colours that say where a pixel was: red across, green down."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = 2 * np.arange(width)
    image[..., 1] = 2 * np.arange(height)[:, None]
    found = decode(encoded(image), (10, 20), 10**6).astype(float)
    assert found.shape == (10, 20, 3)
    part = np.array(Image.fromarray(image[top : height - top, left : width - left]).resize((20, 10), 1), float)
    np.testing.assert_allclose(found, part, atol=1)
