"""Class labels: how often each comes."""

import re
from collections.abc import Sequence
from typing import overload

import numpy as np

from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import absolute
from sid_jax.runtime.storage.small_files import read_small_text, shown

NO_LABEL = -1  # of an image that has none
MOST_IMAGES = 2**31 - 1  # that counts may add up to: the order of a stream has 32 bits
_MOST_BYTES = 2**24
_NUMBER = re.compile(r"[0-9]{1,10}")


class CountedLabels(Sequence[int]):
    """Class 0 as often as it is counted, then class 1, and so on; never as a list of them all.

    Args:
      counts: how often each class comes, at least one of them more than 0.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts = tuple(counts)
        self._ends = np.cumsum(self.counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> list[int]: ...

    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        return int(np.searchsorted(self._ends, range(len(self))[index], side="right"))


def read_counts(path: str, classes: int) -> list[int]:
    """How many images each class has, from a text file: a number a line, in the order of the classes.

    Args:
      path: local or gs://.
      classes: how many there are.

    Raises:
      UserError: the file can't be read, a line is no number, there are not as many as classes, or they are all 0 or add
        up to too many.
    """
    name = f"labels.counts {shown(path)}"
    lines = [line.strip() for line in read_small_text(absolute(path), _MOST_BYTES).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not _NUMBER.fullmatch(line):
            raise UserError(f"{name}: line {number} is {shown(line)[:60]!r}: write the images of a class, a number")
    if len(lines) != classes:
        raise UserError(f"{name} has {len(lines)} lines: write one for each class of the teacher, {classes}")
    counts = [int(line) for line in lines]
    if not 0 < sum(counts) <= MOST_IMAGES:
        raise UserError(f"{name}: its counts add up to {sum(counts)}: use 1 to {MOST_IMAGES} in all")
    return counts
