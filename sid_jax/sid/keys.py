"""Random draws: each has a key of its own, derived from (seed, step, purpose, micro-batch) and from nothing else.

A run that is resumed at a step therefore draws what the uninterrupted run draws there.
"""

from enum import IntEnum

import jax


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


def key_for(seed: int, step: int | jax.Array, purpose: Purpose, micro_batch: int | jax.Array = 0) -> jax.Array:
    """The key of a draw at a step; `micro_batch` is its index within the batch."""
    key = jax.random.key(seed)
    for number in (step, int(purpose), micro_batch):
        key = jax.random.fold_in(key, number)
    return key
