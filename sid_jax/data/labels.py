"""Class labels: how often each comes, and a stream of them."""

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import numpy as np

from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import absolute
from sid_jax.runtime.storage.small_files import read_small_text, shown

NO_LABEL = -1  # of an image that has none
MOST_IMAGES = 2**53  # that counts may add up to: a float64 tells all numbers up to it apart
_MOST_BYTES = 2**24
_NUMBER = re.compile(r"[0-9]{1,15}")
_log = logging.getLogger(__name__)


class CountedLabels(list[int]):
    """Labels, each with how often it comes.

    Attributes:
      counts: of each, in the same order.
    """

    def __init__(self, labels: Iterable[int], counts: Sequence[int]) -> None:
        super().__init__(labels)
        self.counts = tuple(counts)


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
        raise UserError(f"{name}: its counts add up to {sum(counts)}: use 1 to 2^53 in all")
    return counts


class LabelStream:
    """Batches of labels without end, which depend on `seed` and on the number of the iteration alone.

    Each iteration has two batches, drawn independently. In a batch of B a label that is a share p of all comes B p
    times, rounded up or down at random so that it is B p on average, and they are in a random order. Nothing is as long
    as an epoch, and hosts read their rows of the same batches.

    Args:
      labels: each comes as often as any other, or as often as `CountedLabels` count it.
      batch: B, labels of one update over all hosts.
      seed: of what is drawn, 0 or more.
      read: from a list of n labels to a pytree of numpy arrays `[n, ...]`.
      rows: the indices of this host's rows of a batch; by default all.
    """

    def __init__(
        self,
        labels: Sequence[int],
        batch: int,
        seed: int,
        read: Callable[[list[int]], Any],
        rows: Sequence[int] | None = None,
    ) -> None:
        self._labels = np.asarray(labels, np.int64)
        counts = labels.counts if isinstance(labels, CountedLabels) else (1,) * len(labels)
        self._ends = np.cumsum(counts, dtype=np.float64)
        self._last = max(index for index, count in enumerate(counts) if count)
        self._batch, self._seed, self._read = batch, seed, read
        self._rows = np.arange(batch) if rows is None else np.asarray(rows)
        self._iteration = 0
        self._digest = hashlib.sha256(f"{self._labels.tolist()} {counts}".encode()).hexdigest()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Any]:
        """This host's part of the next iteration: `fake` and `generator`, arrays `[len(rows), ...]`."""
        batches = {"fake": self._drawn(0), "generator": self._drawn(1)}
        self._iteration += 1
        return {name: self._read(labels[self._rows].tolist()) for name, labels in batches.items()}

    def position(self) -> dict[str, Any]:
        """See `Stream`."""
        return {"iteration": self._iteration, "labels": self._digest}

    def restore(self, position: dict[str, Any], force: bool = False) -> None:
        """See `Stream`. Raises UserError where the labels, or their counts, are others."""
        if position["labels"] != self._digest:
            if not force:
                raise UserError(
                    "the labels or their counts are not those that this run was started with: restore the file of "
                    "labels.counts, or use another workdir, or --resume=force to go on with these"
                )
            _log.warning("going on with other labels or counts, as --resume=force asks")
        self._iteration = position["iteration"]

    def _drawn(self, which: int) -> np.ndarray:
        """One of the two batches of this iteration, `[B]`."""
        draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, self._iteration, which])))
        # Equally far from each other, from a random start: every label lies under as many as its share, or one more.
        points = (np.arange(self._batch) + draw.random()) * (self._ends[-1] / self._batch)
        found = np.minimum(np.searchsorted(self._ends, points, side="right"), self._last)
        return self._labels[found[np.argsort(draw.random(self._batch), kind="stable")]]
