"""Writes a data set as EDM's tools do: PNG files of one size and `dataset.json`, in a zip file or a folder."""

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from sid_jax.data.images import Corrupted, read_rgb
from sid_jax.data.labels import NO_LABEL
from sid_jax.data.pairs import PairSource
from sid_jax.data.sources.image_zip import LABELS
from sid_jax.errors import UserError
from sid_jax.runtime.run.progress import following
from sid_jax.runtime.storage.files import naming
from sid_jax.runtime.storage.folders import appearing
from sid_jax.runtime.storage.zips import check_room, member, zip_appearing

MOST_PIXELS = 2**26  # of an image
_IN_A_FOLDER = 1000
_AT_A_TIME = 256  # images that are in memory
_OF_A_FILE = 300  # bytes of a PNG and of a zip's directory besides pixels

Write = Callable[[str, bytes], None]


def convert(source: PairSource, out: Path, resolution: int | None, *, labels: bool = True) -> dict[int, int]:
    """Writes all images of a source, whole or not at all; equal images give equal bytes.

    An image that is no square is cut to the one in its middle, and resized by Lanczos' filter. What EXIF says of the
    way up is not heeded, as in the data sets that the published teachers were trained on.

    Args:
      source: images with labels, or without.
      out: a file that ends in .zip, or a folder; not there yet.
      resolution: of the images that are written, in pixels; None: theirs, which must be one.
      labels: whether those of the source are written.

    Returns:
      How many images each class has; of images without labels -1 is the only one.

    Raises:
      UserError: an image can't be used, the sizes differ, or the file or folder can't be written.
    """
    written: list[tuple[str, int]] = []
    need = len(source) * (3 * (resolution or 0) ** 2 + _OF_A_FILE)
    try:
        with naming(out), _writing(out, need) as write:
            for index, (data, label) in enumerate(_converted(source, resolution)):
                name = f"{index // _IN_A_FOLDER:05d}/img{index:08d}.png"
                write(name, data)
                written.append((name, label if labels else NO_LABEL))
            without = any(label == NO_LABEL for _, label in written)
            write(LABELS, json.dumps({"labels": None if without else written}).encode())
    except OSError as error:
        raise UserError(f"{out} can't be written: {error.strerror or error}") from error
    classes, counts = np.unique([NO_LABEL if without else label for _, label in written], return_counts=True)
    return dict(zip(classes.tolist(), counts.tolist(), strict=True))


def _converted(source: PairSource, resolution: int | None) -> Iterator[tuple[bytes, int]]:
    """The PNG files and the labels, in order; several are made at once."""
    side = resolution

    def one(index: int) -> tuple[Image.Image, int]:
        try:
            pair = source[index]
            if isinstance(pair.image, bytes):
                image = read_rgb(pair.image, MOST_PIXELS, upright=False)
            else:
                image = Image.fromarray(pair.image)
        except Corrupted as error:
            raise UserError(f"{source.name}: image {index} can't be used: {error}; mend it, or remove it") from error
        if resolution is not None:
            image = _square(image, resolution)
        elif image.size != (side or image.size[0],) * 2:
            width, height = image.size
            raise UserError(f"{source.name}: image {index} has {width}x{height} pixels: give a resolution for all")
        return image, pair.conditions[0]

    side = side or one(0)[0].size[0]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        groups = (range(start, min(start + _AT_A_TIME, len(source))) for start in range(0, len(source), _AT_A_TIME))
        for group in following(groups, len(source), "converting", size=len):
            for image, label in pool.map(one, group):
                yield _png(image), label


def _square(image: Image.Image, resolution: int) -> Image.Image:
    """The square in the middle, on whole pixels, resized."""
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    return image.crop((left, top, left + side, top + side)).resize((resolution,) * 2, Image.Resampling.LANCZOS)


def _png(image: Image.Image) -> bytes:
    """Not compressed, since versions of zlib compress the same pixels to other bytes."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=0)
    return file.getvalue()


@contextlib.contextmanager
def _writing(out: Path, need: int) -> Iterator[Write]:
    if out.suffix == ".zip":
        with zip_appearing(out, need) as packed:
            yield lambda name, data: packed.writestr(member(name), data)
        return
    check_room(out.parent, need, out)
    with appearing(out) as folder:

        def write(name: str, data: bytes) -> None:
            file = folder / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)

        yield write
