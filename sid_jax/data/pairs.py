"""Real images with what they are of: what the sources in `sources/` have in common.

A source is a sequence of `Pair`s with random access. `sources/open.py` chooses one by the name in a config, and
`streams.py` draws from it without end.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np

from sid_jax.size import Resolution


class Pair(NamedTuple):
    """An image and what it is of.

    Attributes:
      image: an encoded file, or an array: a latent `[h, w, C]`.
      conditions: one or more, of which a stream takes one: captions, or class labels, all of one type in a source.
    """

    image: bytes | np.ndarray
    conditions: tuple[Any, ...]


class Encoded(NamedTuple):
    """What the latents are that images were encoded to before.

    Attributes:
      shape: (h, w, C) of a latent.
      resolution: of the images.
      space: identifies the space of the latents (`Space.digest` of a teacher).
    """

    shape: tuple[int, ...]
    resolution: Resolution
    space: str


class PairSource(Protocol):
    """Pairs by index.

    Attributes:
      name: says which pairs they are, also in another process: equal names mean equal pairs.
      classes: where the conditions are labels, which are below this number; 0: none of the images has one, and the
        label of each is -1; None: they are captions.
      encoded: what the latents are that stand in the place of images; None where there are images.
    """

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> int | None: ...

    @property
    def encoded(self) -> Encoded | None: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair:
        """The pair at an index, from 0 to the length - 1.

        Raises:
          Corrupted: there is no usable pair at that place.
        """
        ...
