"""Image-text pairs: where they come from, and the endless shuffled stream that the GAN term draws from.

A source is a sequence of `Pair`s with random access: `tfds_pairs`, `image_folder`, `webdataset` and `latents` have one
each. `open_pairs` chooses by the name.
"""

from typing import NamedTuple, Protocol

import numpy as np


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
