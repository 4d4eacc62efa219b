"""Image-text pairs: where they come from, and the endless shuffled stream that the GAN term draws from.

A source is a sequence of `Pair`s with random access: `tfds_pairs`, `image_folder`, `webdataset` and `latents` have one
each. `open_pairs` chooses by the name.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import grain
import numpy as np

from sid_jax.data.images import Corrupted, decode
from sid_jax.errors import UserError

_MOST_IN_A_ROW = 1000  # unusable images one after another: then it is not a few that are damaged
_log = logging.getLogger(__name__)


class Pair(NamedTuple):
    """An image, as an encoded file or as an array (a latent `[h, w, C]`), and its captions, at least one."""

    image: bytes | np.ndarray
    captions: tuple[str, ...]


class PairSource(Protocol):
    """Pairs by index. `name` says which they are, also in another process: equal names mean equal pairs."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair:
        """Raises `Corrupted` where there is no usable pair."""
        ...


def open_pairs(
    source: str, *, split: str = "train", data_dir: str = "", image: str = "image", caption: str = ""
) -> PairSource:
    """The pairs that a config names.

    Args:
      source: "tfds:NAME", a dataset of tensorflow_datasets; a .tar file or a pattern of them (WebDataset); the folder
        of a latent cache; or a folder of images.
      split, data_dir, image, caption: of tensorflow_datasets: the split, where the data is, and the names of the
        features with the image and the caption; an empty `caption` is found.

    Raises:
      UserError: there are no such pairs.
    """
    from sid_jax.data import image_folder, latents, tfds_pairs, webdataset

    if not source:
        raise UserError("config key real.source is empty: the GAN term needs image-text pairs")
    if source.startswith("tfds:"):
        return tfds_pairs.TfdsPairs(source.removeprefix("tfds:"), split, data_dir, image, caption)
    if source.endswith(".tar"):
        return webdataset.WebDataset(source)
    if latents.is_cache(source):
        return latents.LatentCache(source)
    return image_folder.ImageFolder(source)


class PairStream:
    """Batches of pairs without end, each epoch in an order of its own that depends on `seed` alone.

    What the pairs of an iteration are does not depend on the number of hosts: each host reads its rows of the batch. In
    the place of an image that can't be used stands the next one of the source that can, and it is counted.

    Args:
      source: the pairs.
      batch: B, over all hosts.
      seed: of the order.
      read: from captions to a pytree of numpy arrays [n, ...], such as tokens.
      resolution: of the images, in pixels.
      most_pixels: that an image may have; larger ones are counted as corrupted.
      rows: the indices of this host's rows of a batch; by default all.
    """

    def __init__(
        self,
        source: PairSource,
        batch: int,
        seed: int,
        read: Callable[[list[str]], Any],
        resolution: int,
        most_pixels: int,
        rows: Sequence[int] | None = None,
    ):
        rows = range(batch) if rows is None else rows

        def load_all(number: int, indices: list[int]) -> dict[str, Any]:
            loaded = [_load(source, indices[row], number, resolution, most_pixels) for row in rows]
            images, captions, corrupted = zip(*loaded, strict=True)
            return {
                "images": np.stack(images),
                "captions": list(captions),
                "corrupted": np.array(corrupted, np.int32),
            }

        self._read = read
        # Not repeat() without a number: Grain can't count how many batches of 1 an endless dataset has.
        epochs = 2**60 // len(source)
        shuffled = grain.MapDataset.range(len(source)).seed(seed % 2**32).shuffle().repeat(epochs)
        batches = shuffled.batch(batch, batch_fn=list).map_with_index(load_all)
        self._iterator = iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=4)))
        self._digest = hashlib.sha256(f"{source.name}\n{len(source)}".encode()).hexdigest()

    def __next__(self) -> dict[str, Any]:
        """This host's rows of the next iteration.

        `images` uint8 `[n, H, W, 3]` (latents: float32 `[n, h, w, C]`), `tokens` of their captions, and `corrupted`
        int32 `[n]`: images that were skipped for each.
        """
        loaded = next(self._iterator)
        # Here and not in the threads above: tokenizers are not safe to call from two at once.
        return {
            "images": loaded["images"],
            "tokens": self._read(loaded["captions"]),
            "corrupted": loaded["corrupted"],
        }

    def position(self) -> dict[str, Any]:
        """Where the stream is, as a JSON-able dict for `restore`."""
        return {"iterator": self._iterator.get_state(), "pairs": self._digest}

    def restore(self, position: dict[str, Any], force: bool = False) -> None:
        """Goes on exactly where `position` was taken; with `force` from other pairs too, at the same place.

        Raises:
          UserError: the pairs are not those that the position was taken with.
        """
        if position["pairs"] != self._digest and not force:
            raise UserError(
                "the image-text pairs are not those that this run was started with: restore them, or use another "
                "workdir"
            )
        self._iterator.set_state(position["iterator"])


class JoinedStream:
    """A stream of prompts and one of pairs as one: each iteration has what both have, the pairs under "real"."""

    def __init__(self, prompts: Any, pairs: PairStream):
        self._prompts, self._pairs = prompts, pairs

    def __iter__(self) -> "JoinedStream":
        return self

    def __next__(self) -> dict[str, Any]:
        """This host's part of the next iteration."""
        return {**next(self._prompts), "real": next(self._pairs)}

    def position(self) -> dict[str, Any]:
        """Where both streams are."""
        return {**self._prompts.position(), "real": self._pairs.position()}

    def restore(self, position: dict[str, Any], **options: bool) -> None:
        """Goes on exactly where `position` was taken; `options` are those of both streams."""
        self._prompts.restore(position, **options)
        self._pairs.restore(position["real"], **options)


def _load(
    source: PairSource, index: int, number: int, resolution: int, most_pixels: int
) -> tuple[np.ndarray, str, int]:
    """Image, caption and how many were skipped, of the first usable pair from `index` on.

    Of several captions the batch's number chooses one, so that all of them are seen over the epochs.
    """
    for skipped in range(min(_MOST_IN_A_ROW, len(source))):
        position = (index + skipped) % len(source)
        try:
            image, captions = source[position]
            if isinstance(image, bytes):
                image = decode(image, resolution, most_pixels)
            return image, captions[number % len(captions)], skipped
        except Corrupted as error:
            reason = error
            _log.debug("%s: pair %d is skipped: %s", source.name, position, error)
    raise UserError(f"{source.name}: {skipped + 1} pairs in a row, from {index} on, can't be used: {reason}")
