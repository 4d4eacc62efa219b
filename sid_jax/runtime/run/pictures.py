"""Pictures of samples: a grid, two samplers side by side for the same prompts, and PNG files.

Images are uint8 arrays `[N, H, W, 3]`. Small images are enlarged by a whole factor, pixel by pixel, to be seen.
"""

import functools
import io
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from sid_jax.runtime.run.captions import drawable, in_file, keep
from sid_jax.runtime.storage.files import write_whole

TILE = 72  # pixels; smaller images are enlarged to at least this
GAP = 4
TEXT = 13  # font size in pixels; below larger images it is larger, since such grids are looked at reduced
LINE = 17  # pixels from one line of text to the next
MOST_LINES = 5  # of a caption
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def image_grid(
    images: np.ndarray, columns: int | None = None, captions: Sequence[str] | None = None, tile: int = TILE
) -> Image.Image:
    """The images row by row in a grid, each with its caption below it if there are captions.

    Args:
      images: uint8 `[N, H, W, 3]`, N >= 1.
      columns: None: as many as make the grid about square.
      captions: N texts; each is wrapped to its tile's width, and of long ones there are `MOST_LINES`.
      tile: the least width of a tile in pixels; smaller images are enlarged.
    """
    images = enlarge(images, tile)
    count, height, width, _ = images.shape
    columns = min(count, columns or int(np.ceil(np.sqrt(count))))
    rows = -(-count // columns)
    size = max(TEXT, width // 20)
    texts = [_wrap(each, width, MOST_LINES, size) for each in captions] if captions is not None else [[]] * count
    caption_height = _line(size) * max(map(len, texts))
    step_x, step_y = width + GAP, height + caption_height + GAP
    canvas = Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP), WHITE)
    for index, (image, lines) in enumerate(zip(images, texts, strict=True)):
        x, y = GAP + index % columns * step_x, GAP + index // columns * step_y
        canvas.paste(Image.fromarray(image), (x, y))
        _write(canvas, (x, y + height), lines, size)
    keep(canvas, captions or ())
    return canvas


def two_grids(
    blocks: Sequence[np.ndarray], titles: Sequence[str], captions: Sequence[str] | None = None, tile: int = TILE
) -> Image.Image:
    """Two grids of the same prompts, each under its title.

    Args:
      blocks: uint8 `[N, H, W, 3]`, both.
      titles: what made each, such as "teacher, 50 steps" and "student, 1 step".
      captions: of the N images of a block; None: there are none.
      tile: the least width of a tile in pixels; smaller images are enlarged.
    """
    grids = [image_grid(block, captions=captions, tile=tile) for block in blocks]
    size = max(TEXT, blocks[0].shape[2] // 20)
    lines = [_wrap(title, grid.width - 2 * GAP, MOST_LINES, size) for title, grid in zip(titles, grids, strict=True)]
    top = _line(size) * max(map(len, lines)) + GAP
    space = 4 * GAP
    canvas = Image.new("RGB", (sum(grid.width for grid in grids) + space, top + grids[0].height), WHITE)
    x = 0
    for grid, title in zip(grids, lines, strict=True):
        _write(canvas, (x + GAP, GAP), title, size)
        canvas.paste(grid, (x, top))
        x += grid.width + space
    keep(canvas, captions or ())
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
    keep(canvas, prompts)
    return canvas


def enlarge(images: np.ndarray, tile: int = TILE) -> np.ndarray:
    """Repeats pixels by the least whole factor that makes images `[N, H, W, 3]` at least `tile` wide."""
    factor = max(1, -(-tile // images.shape[2]))
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def save_png(image: Image.Image | np.ndarray, path: os.PathLike | str) -> None:
    """Writes a PNG file, of which a reader finds the whole or nothing, with the texts of its images.

    Args:
      image: a picture, or a uint8 array `[H, W, 3]`.
      path: local or gs://.
    """
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    data, texts = io.BytesIO(), PngImagePlugin.PngInfo()
    for key, text in in_file(picture).items():
        texts.add_itxt(key, text)
    picture.save(data, "PNG", pnginfo=texts)
    write_whole(path, data.getvalue())


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _line(size: int) -> int:
    """Pixels from one line of text to the next."""
    return LINE * size // TEXT


def _wrap(text: str, width: int, most: int | None = None, size: int = TEXT) -> list[str]:
    """The text in lines of at most `width` pixels, at most `most` lines; a word that is wider than a line is broken."""
    lines = [""]
    for word in drawable(text).split():
        if most is not None and len(lines) > most + 1:  # the first may be empty
            break
        joined = f"{lines[-1]} {word}".lstrip()
        if _fits(joined, width, size):
            lines[-1] = joined
            continue
        lines.append("")
        for character in word:
            if not _fits(lines[-1] + character, width, size):
                lines.append("")
            lines[-1] += character
    lines = [line for line in lines if line] or [""]
    if most is None or len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and not _fits(f"{last}…", width, size):
        last = last[:-1]
    return [*lines[: most - 1], f"{last}…"]


def _fits(text: str, width: int, size: int) -> bool:
    return _font(size).getlength(text) <= width


def _write(canvas: Image.Image, corner: tuple[int, int], lines: list[str], size: int = TEXT) -> None:
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        draw.text((corner[0], corner[1] + number * _line(size)), line, fill=BLACK, font=_font(size))
