"""The size of images as settings and files have it: one number for squares, or height and width."""

import re
from typing import Any, NamedTuple, TypeAlias

Resolution: TypeAlias = int | tuple[int, int]
"""In pixels: the side of a square, or (height, width)."""

LARGEST = 8192
"""Pixels of a side; latents of Stable Diffusion are then 1,024 wide."""


class Size(NamedTuple):
    """In pixels; as a text `512` or `512x768`, the height first."""

    height: int
    width: int

    def __str__(self) -> str:
        return str(self.height) if self.height == self.width else f"{self.height}x{self.width}"

    @property
    def plain(self) -> Resolution:
        """As settings and files have it."""
        return self.height if self.height == self.width else (self.height, self.width)


def size_of(resolution: Any) -> Size:
    """The size that a setting or a file says.

    Raises:
      ValueError: it is neither a number nor two, or one is not in 1 to `LARGEST`.
    """
    pair = resolution if isinstance(resolution, tuple | list) else (resolution, resolution)
    if len(pair) != 2 or any(type(side) is not int for side in pair):
        raise ValueError(f"{str(resolution)[:60]}: use one number of pixels for squares, or (height, width)")
    if any(not 1 <= side <= LARGEST for side in pair):
        raise ValueError(f"{Size(*pair)}: use an int in [1, {LARGEST}] for each side")
    return Size(*pair)


def parse(text: str) -> Resolution:
    """What a text says: `512`, or `512x768` for a height of 512 and a width of 768.

    Raises:
      ValueError: it says something else.
    """
    found = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?", text.strip())
    if found is None:
        raise ValueError(f"{text[:60]!r} is neither a number nor HEIGHTxWIDTH")
    height, width = int(found[1]), int(found[2] or found[1])
    return height if height == width else (height, width)
