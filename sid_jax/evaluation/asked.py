"""What the images of a measurement are of: prompts in turn, or classes that are drawn."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sid_jax.data.labels import NO_LABEL
from sid_jax.errors import UserError
from sid_jax.evaluation.protocols import Protocol
from sid_jax.sid import Purpose, key_for
from sid_jax.teachers.conditions import Asked, Conditions


def asked_for(
    protocol: Protocol, conditions: Conditions, samples: int, seed: int, prompts: Sequence[str]
) -> Sequence[Any]:
    """What the images of a protocol are of, one of it for each.

    Raises:
      UserError: the model takes something else.
    """
    wanted = {"prompts": "prompts", "labels": "class labels", "none": "neither prompts nor labels"}[protocol.asked]
    takes_prompts = conditions.noun == "prompts"
    classes = [] if takes_prompts else conditions.asked(None)
    has_labels = bool(classes) and classes != [NO_LABEL]
    if (takes_prompts, has_labels) != (protocol.asked == "prompts", protocol.asked == "labels"):
        takes = "prompts" if takes_prompts else "class labels" if has_labels else "neither prompts nor labels"
        raise UserError(f"protocol {protocol.name} is of models that take {wanted}, and this one takes {takes}")
    if takes_prompts:
        return in_turn(prompts, samples)
    return drawn_labels(len(classes), samples, seed) if has_labels else [NO_LABEL] * samples


def in_turn(asked: Asked, samples: int) -> list[Any]:
    """So many of what is asked for, each in its turn."""
    return [asked[i % len(asked)] for i in range(samples)]


def drawn_labels(classes: int, samples: int, seed: int) -> list[int]:
    """A class for each image, uniform: that of a row depends on the seed and the row alone."""

    @jax.jit
    def draw(rows: jax.Array) -> jax.Array:
        def of_row(row: jax.Array) -> jax.Array:
            key = key_for(seed, row, Purpose.EVALUATED_LABEL)
            return jax.random.randint(key, (), 0, classes, jnp.int32)

        return jax.vmap(of_row)(rows)

    labels: list[int] = np.asarray(draw(np.arange(samples, dtype=np.int32))).tolist()
    return labels
