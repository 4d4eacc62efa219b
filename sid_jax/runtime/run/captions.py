"""The texts of a picture: drawn as far as the font has letters for them, and whole in the picture's file.

The font is the one that comes with Pillow, which has the letters of English. `report.html` shows the texts whole, by
the fonts of the browser.
"""

import functools
from collections.abc import Sequence

from PIL import Image, ImageFont

LONGEST = 500  # characters of a text that are kept; text encoders read fewer
_KEY = "captions"  # of a picture's `info`, and of the text in a PNG file: one a line
_SIZE = 40  # pixels, at which no letter looks like the box that stands for a letter that the font lacks
_NO_LETTER = "\U0010fffd"


def drawable(text: str) -> str:
    """The text with each character that the font lacks as Python writes it in ASCII, such as `caf\\xe9`."""
    return "".join(each if each.isspace() or _in_font(each) else ascii(each)[1:-1] for each in text)


def keep(image: Image.Image, captions: Sequence[str]) -> None:
    """Notes the texts of a picture's images in it, for `kept` and for its file."""
    lines = (" ".join(each.split()) for each in captions)
    image.info[_KEY] = "\n".join(line if len(line) <= LONGEST else f"{line[:LONGEST]}…" for line in lines)


def kept(image: Image.Image) -> tuple[str, ...]:
    """The texts that `keep` noted in a picture, or in the file that it was read from; none where it did not."""
    text = image.info.get(_KEY)
    return tuple(text.split("\n")) if isinstance(text, str) and text else ()


def in_file(image: Image.Image) -> dict[str, str]:
    """The texts of a picture by the key under which its file has them."""
    return {_KEY: "\n".join(kept(image))} if kept(image) else {}


@functools.cache
def _in_font(character: str) -> bool:
    font = ImageFont.load_default(_SIZE)
    return bytes(font.getmask(character)) != bytes(font.getmask(_NO_LETTER))
