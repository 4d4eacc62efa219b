"""Captions of images in records of JSON, and many strings in little memory."""

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, overload

MOST_BYTES = 2**20  # of a caption, or of a record with one


def captions_in(record: Any, keys: Sequence[str]) -> tuple[str, ...]:
    """The captions of an image.

    Args:
      record: what was read from JSON.
      keys: the first of them that the record has with a string, or with a list of strings, is taken.

    Raises:
      ValueError: there is no caption, or it is no text; the message says so.
    """
    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")
    for key in keys:
        value = record.get(key)
        captions: list[Any] = value if isinstance(value, list) else [value]
        if captions and all(isinstance(caption, str) for caption in captions):
            for caption in captions:
                check_text(caption)
            return tuple(captions)
    raise ValueError(f"it has no string {' or '.join(map(repr, keys))}")


def check_text(text: str) -> None:
    """Raises ValueError for half of a surrogate pair, which JSON can spell and which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it has half of a surrogate pair") from None


class Texts(Sequence[str]):
    """Strings that are kept as one block of UTF-8: millions of objects would take several times their size.

    Args:
      texts: the strings; names of files may be among them that are not UTF-8, as `os.fsdecode` gives them.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._data, self._ends = bytearray(), array("q", [0])
        for text in texts:
            self._data += text.encode("utf-8", "surrogateescape")
            self._ends.append(len(self._data))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return self._data[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogateescape")
