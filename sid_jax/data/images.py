"""Encoded pictures from anywhere to arrays of one size, without trusting what they say they are."""

import io

import numpy as np
from PIL import Image, ImageOps

from sid_jax.size import Resolution, size_of

FORMATS = ("JPEG", "PNG", "WEBP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MOST_BYTES = 2**27  # of a file; a larger one is no photograph


class Corrupted(Exception):
    """An image that can't be used; the message says why."""


def decode(data: bytes, resolution: Resolution, most_pixels: int) -> np.ndarray:
    """The largest part in the middle of an image that has the wanted proportions, resized.

    The size that the header states is checked before a pixel is decoded, and the part is cut out before it is
    resized. So neither a small file of a huge image nor a very long image takes much memory.

    Args:
      data: a JPEG, PNG or WebP file.
      resolution: what is wanted.
      most_pixels: width times height that an image may have.

    Returns:
      uint8 `[H, W, 3]`.

    Raises:
      Corrupted: it is not such a file, is damaged, or is too large.
    """
    image = read_rgb(data, most_pixels)
    size = size_of(resolution)
    width, height = image.size
    cut_width, cut_height = min(width, height * size.width / size.height), min(height, width * size.height / size.width)
    left, top = (width - cut_width) / 2, (height - cut_height) / 2
    box = (left, top, left + cut_width, top + cut_height)
    return np.asarray(image.resize((size.width, size.height), Image.Resampling.LANCZOS, box=box))


def read_rgb(data: bytes, most_pixels: int, *, upright: bool = True) -> Image.Image:
    """An image in RGB of 8 bits. Arguments and errors as those of `decode`.

    upright: turned as its EXIF data say it is to be seen.
    """
    if len(data) > MOST_BYTES:
        raise Corrupted(f"{len(data)} bytes are more than {MOST_BYTES}")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            width, height = file.size
            if width * height > most_pixels:
                raise Corrupted(f"{width}x{height} pixels are more than {most_pixels}")
            return _in_8_bits(ImageOps.exif_transpose(file) if upright else file).convert("RGB")
    except Corrupted:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything for damaged files
        raise Corrupted(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error


def _in_8_bits(image: Image.Image) -> Image.Image:
    """The image in a mode of 8 bits a channel, by the upper 8 of 16 bits, as Pillow itself reads 16-bit RGB.

    Pillow converts its modes of more bits by cutting all above 255 off, so that nearly everything becomes white.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray((np.clip(np.asarray(image), 0, 2**16 - 1) >> 8).astype(np.uint8))
    if image.mode == "F" or ";" in image.mode:  # which no format above has, in this version of Pillow
        raise Corrupted(f"pixels of Pillow's type {image.mode}")
    if image.mode == "P":
        image.info.pop("transparency", None)  # not used, and Pillow warns of it
    return image
