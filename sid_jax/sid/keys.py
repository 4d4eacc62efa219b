"""Random draws: each has a key of its own, derived from (seed, step, purpose, micro-batch) and from nothing else.

A run that is resumed at a step therefore draws what the uninterrupted run draws there.
"""

from enum import IntEnum

import jax
import jax.numpy as jnp
import numpy as np

MOST_SEED = 2**64 - 1
"""The largest seed, as PyTorch has it; the least is 0."""


class Purpose(IntEnum):
    """What a draw is for. The numbers are part of a run's reproducibility: add new ones, never renumber."""

    NUM_STEPS = 0  # n, once for an iteration
    FAKE_STEPS = 1  # z_k of the generator in update A
    FAKE_TIME = 2  # t
    FAKE_NOISE = 3  # e
    FAKE_DROPOUT = 4  # whose prompt is dropped
    GENERATOR_STEPS = 5  # z_k of the generator in update B
    GENERATOR_TIME = 6  # t
    GENERATOR_NOISE = 7  # e
    FAKE_AUGMENT = 8  # how the generator's images are augmented in update A
    REAL_AUGMENT = 9  # how real images are
    FAKE_NET = 10  # what the fake network drops out in update A
    GENERATOR_NET = 11  # what the generator drops out in update B
    REAL_NET = 12  # what the fake network drops out where it looks at real images
    EVALUATED_LABEL = 13  # the class of an image that is measured; its row stands for the step


def seed_words(seed: int) -> np.ndarray:
    """A seed as the 64 bits of its key, uint32 `[2]`.

    Raises:
      ValueError: the seed is not in [0, 2^64).
    """
    if not 0 <= seed <= MOST_SEED:
        raise ValueError(f"seed: {seed} is not in [0, {MOST_SEED}]")
    return np.array([seed >> 32, seed & (2**32 - 1)], np.uint32)


def key_of(seed: int | np.ndarray | jax.Array) -> jax.Array:
    """The key of a seed, or of its `seed_words`: what `jax.random.key` makes of small ones, whatever JAX's settings."""
    words = seed if isinstance(seed, np.ndarray | jax.Array) else seed_words(seed)
    key: jax.Array = jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")
    return key


def key_for(seed: int, step: int | jax.Array, purpose: Purpose, micro_batch: int | jax.Array = 0) -> jax.Array:
    """The key of a draw at a step; `micro_batch` is its index within the batch."""
    key = key_of(seed)
    for number in (step, int(purpose), micro_batch):
        key = jax.random.fold_in(key, number)
    return key
