"""What a run reads, as endless shuffled streams whose position can be saved."""

import functools
import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import grain
import numpy as np

from sid_jax.data.images import Corrupted, decode
from sid_jax.data.pairs import PairSource
from sid_jax.errors import UserError
from sid_jax.size import Resolution

Arrays = Any  # a pytree of numpy arrays `[B, ...]`

_MOST_IN_A_ROW = 1000  # so many unusable images one after another mean that more is wrong than a few of them
_log = logging.getLogger(__name__)


class Stream(Protocol):
    """What a run draws from: iterations without end, from a position that can be saved."""

    def __next__(self) -> dict[str, Any]:
        """This host's part of the next iteration."""
        ...

    def position(self) -> dict[str, Any]:
        """Where the stream is, as a JSON-able dict for `restore`."""
        ...

    def restore(self, position: dict[str, Any], force: bool = False) -> None:
        """Goes on exactly where `position` was taken.

        Args:
          position: what `position` has returned.
          force: also with other data than the position was taken with, at the same place of their order.

        Raises:
          UserError: the data are not those that the position was taken with.
        """
        ...


class ConditionStream:
    """Batches of prompts without end, each epoch in an order of its own that depends on `seed` alone.

    Iteration i takes the next 2 * batch prompts of the stream: `batch` for the fake update and `batch` others for the
    generator update. The prompts of an iteration do not depend on the number of hosts: each host reads its rows of both
    batches, and the position is the same on all hosts.

    Args:
      prompts: at least one; fewer than a batch will do.
      batch: B, prompts of one update over all hosts.
      seed: of the order.
      read: from a list of n prompts to a pytree of numpy arrays `[n, ...]`, such as tokens.
      rows: the indices of this host's rows of a batch; by default all.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        batch: int,
        seed: int,
        read: Callable[[list[str]], Arrays],
        rows: Sequence[int] | None = None,
    ) -> None:
        chosen = range(batch) if rows is None else rows

        def both_batches(drawn: list[str]) -> dict[str, Arrays]:
            return {
                "fake": read([drawn[row] for row in chosen]),
                "generator": read([drawn[batch + row] for row in chosen]),
            }

        endless = _shuffled(len(prompts), seed).map(list(prompts).__getitem__)
        batches = endless.batch(2 * batch, batch_fn=list).map(both_batches)
        # No threads: two of them can't call a tokenizer at once, and the devices are busy while the host tokenises.
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        self._iterator = iter(batches.to_iter_dataset(options))
        self._digest = hashlib.sha256("\n".join(map(str, prompts)).encode()).hexdigest()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Arrays]:
        """This host's part of the next iteration: `fake` and `generator`, arrays `[len(rows), ...]`."""
        return next(self._iterator)

    def position(self) -> dict[str, Any]:
        """See `Stream`."""
        return {"iterator": self._iterator.get_state(), "prompts": self._digest}

    def restore(self, position: dict[str, Any], force: bool = False) -> None:
        """See `Stream`. Raises UserError where the prompts are others."""
        if position["prompts"] != self._digest:
            if not force:
                raise UserError(
                    "the prompts are not those that this run was started with: restore the file, or use another "
                    "workdir, or --resume=force to go on with these"
                )
            _log.warning("going on with other prompts, as --resume=force asks")
        self._iterator.set_state(position["iterator"])


class PairStream:
    """Batches of pairs without end, each epoch in an order of its own that depends on `seed` alone.

    The pairs of an iteration do not depend on the number of hosts: each host reads its rows of the batch. An image that
    can't be used is counted, and the next one of the source that can be used takes its place.

    Args:
      source: the pairs.
      batch: B, over all hosts.
      seed: of the order.
      read: from a list of n conditions to a pytree of numpy arrays `[n, ...]`, such as tokens.
      resolution: of the images.
      most_pixels: that an image may have; larger ones are counted as corrupted.
      rows: the indices of this host's rows of a batch; by default all.
    """

    def __init__(
        self,
        source: PairSource,
        batch: int,
        seed: int,
        read: Callable[[list[Any]], Arrays],
        resolution: Resolution,
        most_pixels: int,
        rows: Sequence[int] | None = None,
    ) -> None:
        chosen = range(batch) if rows is None else rows

        def load_all(number: int, indices: list[int]) -> dict[str, Any]:
            loaded = [_load(source, indices[row], number, resolution, most_pixels) for row in chosen]
            images, conditions, corrupted = zip(*loaded, strict=True)
            return {
                "images": np.stack(images),
                "conditions": list(conditions),
                "corrupted": np.array(corrupted, np.int32),
            }

        self._read = read
        batches = _shuffled(len(source), seed).batch(batch, batch_fn=list).map_with_index(load_all)
        self._iterator = iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=4)))
        self._digest = hashlib.sha256(f"{source.name}\n{len(source)}".encode(errors="surrogateescape")).hexdigest()

    def __next__(self) -> dict[str, Any]:
        """This host's rows of the next iteration, n of them.

        Returns:
          `images`: uint8 `[n, H, W, 3]`, or latents float32 `[n, h, w, C]`; `tokens`: what `read` makes of their
          conditions; `corrupted`: int32 `[n]`, how many images were skipped for each.
        """
        loaded = next(self._iterator)
        # `read` is called here and not in the threads above, since two of them can't call a tokenizer at once.
        return {
            "images": loaded["images"],
            "tokens": self._read(loaded["conditions"]),
            "corrupted": loaded["corrupted"],
        }

    def position(self) -> dict[str, Any]:
        """See `Stream`."""
        return {"iterator": self._iterator.get_state(), "pairs": self._digest}

    def restore(self, position: dict[str, Any], force: bool = False) -> None:
        """See `Stream`. Raises UserError where the pairs are others."""
        if position["pairs"] != self._digest and not force:
            raise UserError(
                "the real images are not those that this run was started with: restore them, or use another workdir"
            )
        self._iterator.set_state(position["iterator"])


class JoinedStream:
    """A stream of prompts and one of pairs as one: each iteration has what both have, the pairs under "real".

    Args:
      prompts: whose iterations have no "real".
      pairs: the other one.
      fake_as_real: the fake update is given what the pairs are of, sample by sample, in the place of prompts.
    """

    def __init__(self, prompts: Stream, pairs: Stream, fake_as_real: bool = False) -> None:
        self._prompts, self._pairs, self._fake_as_real = prompts, pairs, fake_as_real

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Any]:
        """This host's part of the next iteration."""
        prompts, real = next(self._prompts), next(self._pairs)
        return {**prompts, **({"fake": real["tokens"]} if self._fake_as_real else {}), "real": real}

    def position(self) -> dict[str, Any]:
        """See `Stream`: where both are."""
        return {**self._prompts.position(), "real": self._pairs.position()}

    def restore(self, position: dict[str, Any], force: bool = False) -> None:
        """See `Stream`: both go on. Raises UserError where the data of one are others."""
        self._prompts.restore(position, force=force)
        self._pairs.restore(position["real"], force=force)


def _shuffled(count: int, seed: int) -> grain.MapDataset:
    """The numbers below `count`, epoch after epoch, each epoch in an order of its own.

    Not by Grain's `shuffle`: to be fast with 2^32 numbers it needs 30 ms for an epoch of ten.
    """

    @functools.lru_cache(maxsize=2)  # a batch may be of two epochs
    def order(epoch: int) -> np.ndarray:
        # NumPy keeps the numbers of a bit generator the same for good, and not those of `Generator.permutation`.
        digest = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
        drawn = np.random.Philox(key=int.from_bytes(digest[:16], "big")).random_raw(count)
        return np.argsort(drawn, kind="stable")

    def number(position: int) -> int:
        epoch, place = divmod(position, count)
        return int(order(epoch)[place])

    # Not endless: Grain can't count how many batches of 1 an endless dataset has.
    return grain.MapDataset.range(2**60 // count * count).map(number)


def _load(
    source: PairSource, index: int, number: int, resolution: Resolution, most_pixels: int
) -> tuple[np.ndarray, Any, int]:
    """The image and a condition of the first usable pair from `index` on, and how many pairs were skipped.

    Of several conditions the batch's number chooses one, so that all of them are seen over the epochs.
    """
    for skipped in range(min(_MOST_IN_A_ROW, len(source))):
        position = (index + skipped) % len(source)
        try:
            image, conditions = source[position]
            if isinstance(image, bytes):
                image = decode(image, resolution, most_pixels)
            return image, conditions[number % len(conditions)], skipped
        except Corrupted as error:
            reason = error
            _log.debug("%s: pair %d is skipped: %s", source.name, position, error)
    raise UserError(f"{source.name}: {skipped + 1} pairs in a row, from {index} on, can't be used: {reason}")
