"""The training loop that the autoencoder, the diffusion model and the metric network share."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sid_jax.runtime.run.progress import Progress
from sid_jax.sid import key_of

Loss = Callable[[Any, jax.Array, Any], jax.Array]


class Schedule(NamedTuple):
    """How long something is trained, and how.

    Attributes:
      steps: updates.
      batch: samples an update, drawn uniformly.
      learning_rate: at its peak, after a twentieth of the steps.
      ema_decay: share of the moving average kept at a step; what is returned is the average.
    """

    steps: int
    batch: int
    learning_rate: float
    ema_decay: float = 0.99


def fit(name: str, loss: Loss, params: Any, data: Any, schedule: Schedule, *, seed: int) -> Any:
    """Parameters that minimise `loss` on batches of `data`, by AdamW with warm-up and cosine decay.

    Args:
      name: what progress is shown of.
      loss: (params, key, batch of the data) -> scalar.
      params: a tree of arrays; it is consumed.
      data: a tree of arrays with a common first axis, kept on the device.
      schedule: how long, and how.
      seed: all draws are derived from (seed, step).
    """
    steps, batch = schedule.steps, schedule.batch
    rate = optax.warmup_cosine_decay_schedule(0.0, schedule.learning_rate, max(steps // 20, 1), steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.99, weight_decay=1e-4))
    size = len(jax.tree.leaves(data)[0])

    @jax.jit
    def update(carry: tuple[Any, Any, Any], step: jax.Array) -> tuple[tuple[Any, Any, Any], jax.Array]:
        params, average, moments = carry
        draw, rest = jax.random.split(jax.random.fold_in(key_of(seed), step))
        rows = jax.random.randint(draw, (batch,), 0, size, jnp.int32)
        value, gradient = jax.value_and_grad(loss)(params, rest, jax.tree.map(lambda x: x[rows], data))
        changes, moments = optimizer.update(gradient, moments, params)
        params = optax.apply_updates(params, changes)
        decay = jnp.minimum(schedule.ema_decay, (1 + step) / (10 + step))
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, params)
        return (params, average, moments), value

    carry = (params, params, optimizer.init(params))
    with contextlib.closing(Progress(steps, unit="updates", name=name)) as progress:
        for step in range(steps):
            carry, value = update(carry, step)
            if step % 20 == 19 or step == steps - 1:
                progress.update(step + 1, {"loss": value})
    return carry[1]
