"""Pictures of samples: a grid, two samplers side by side for the same prompts, and PNG files.

Images are uint8 arrays `[N, H, W, 3]`. Small images are enlarged by a whole factor, pixel by pixel, to be seen.
"""

import functools
import io
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sid_jax.runtime.storage.files import write_whole

TILE = 72  # pixels; smaller images are enlarged to at least this
GAP = 4
TEXT = 13  # font size in pixels
LINE = 17  # pixels from one line of text to the next
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def image_grid(
    images: np.ndarray, columns: int | None = None, captions: Sequence[str] | None = None, tile: int = TILE
) -> Image.Image:
    """The images row by row in a grid, each with its caption below it if there are captions.

    Args:
      images: uint8 `[N, H, W, 3]`, N >= 1.
      columns: None: as many as make the grid about square.
      captions: N texts; each is wrapped to its tile's width.
      tile: the least width of a tile in pixels; smaller images are enlarged.
    """
    images = enlarge(images, tile)
    count, height, width, _ = images.shape
    columns = min(count, columns or int(np.ceil(np.sqrt(count))))
    rows = -(-count // columns)
    texts = [_wrap(caption, width) for caption in captions] if captions is not None else [[]] * count
    caption_height = LINE * max(map(len, texts))
    step_x, step_y = width + GAP, height + caption_height + GAP
    canvas = Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP), WHITE)
    for index, (image, lines) in enumerate(zip(images, texts, strict=True)):
        x, y = GAP + index % columns * step_x, GAP + index // columns * step_y
        canvas.paste(Image.fromarray(image), (x, y))
        _write(canvas, (x, y + height), lines)
    return canvas


def side_by_side(
    left: np.ndarray,
    right: np.ndarray,
    titles: tuple[str, str],
    prompts: Sequence[str],
    tile: int = TILE,
    prompt_width: int = 190,
) -> Image.Image:
    """Two blocks of images under their titles, a row for each prompt, with the prompt at the left.

    Args:
      left: uint8 `[R * C, H, W, 3]`, C images of each of the R prompts; the images of a prompt are neighbours.
      right: as `left`; C, H and W may be others.
      titles: what made each block, such as "teacher, 50 steps" and "student, 1 step".
      prompts: R texts.
      tile: the least width of a tile in pixels; smaller images are enlarged.
      prompt_width: pixels for the prompts' column.

    Raises:
      ValueError: the prompts do not have equally many images in a block.
    """
    rows = len(prompts)
    blocks = [enlarge(block, tile) for block in (left, right)]
    per_row = [len(block) // rows for block in blocks]
    for block, columns in zip(blocks, per_row, strict=True):
        if columns * rows != len(block) or columns == 0:
            raise ValueError(f"{len(block)} images can't be shared by {rows} prompts")
    row_height = max(block.shape[1] for block in blocks) + GAP
    widths = [columns * (block.shape[2] + GAP) for block, columns in zip(blocks, per_row, strict=True)]
    starts = [prompt_width, prompt_width + widths[0] + 4 * GAP]
    top = LINE * max(len(_wrap(title, width)) for title, width in zip(titles, widths, strict=True)) + 2 * GAP
    canvas = Image.new("RGB", (starts[1] + widths[1], top + rows * row_height), WHITE)
    for row, prompt in enumerate(prompts):
        lines = _wrap(prompt, prompt_width - 3 * GAP, most=(row_height - GAP) // LINE)
        offset = (row_height - GAP - LINE * len(lines)) // 2
        _write(canvas, (2 * GAP, top + row * row_height + offset), lines)
    for block, columns, title, start, width in zip(blocks, per_row, titles, starts, widths, strict=True):
        _write(canvas, (start, GAP), _wrap(title, width))
        for index, image in enumerate(block):
            position = (start + index % columns * (block.shape[2] + GAP), top + index // columns * row_height)
            canvas.paste(Image.fromarray(image), position)
    return canvas


def enlarge(images: np.ndarray, tile: int = TILE) -> np.ndarray:
    """Repeats pixels by the least whole factor that makes images `[N, H, W, 3]` at least `tile` wide."""
    factor = max(1, -(-tile // images.shape[2]))
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def save_png(image: Image.Image | np.ndarray, path: os.PathLike | str) -> None:
    """Writes a PNG file, of which a reader finds the whole or nothing.

    Args:
      image: a picture, or a uint8 array `[H, W, 3]`.
      path: local or gs://.
    """
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    data = io.BytesIO()
    picture.save(data, "PNG")
    write_whole(path, data.getvalue())


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(TEXT)


def _wrap(text: str, width: int, most: int | None = None) -> list[str]:
    """The text in lines of at most `width` pixels, at most `most` lines; a word that is wider than a line is broken."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".lstrip()
        if _fits(joined, width):
            lines[-1] = joined
            continue
        lines.append("")
        for character in word:
            if not _fits(lines[-1] + character, width):
                lines.append("")
            lines[-1] += character
    lines = [line for line in lines if line] or [""]
    if most is None or len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and not _fits(f"{last}…", width):
        last = last[:-1]
    return [*lines[: most - 1], f"{last}…"]


def _fits(text: str, width: int) -> bool:
    return _font().getlength(text) <= width


def _write(canvas: Image.Image, corner: tuple[int, int], lines: list[str]) -> None:
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        draw.text((corner[0], corner[1] + number * LINE), line, fill=BLACK, font=_font())
