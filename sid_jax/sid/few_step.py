"""The few-step generator and the uniform mixture of its steps (section 4; Few-Step SiD, arXiv 2505.12674).

```
x = 0
for k in 0..n-1:
    x_t = a(t_k) stop_gradient(x) + s(t_k) z_k
    x   = x0-prediction of G_theta(x_t, t_k, c)
```

with t_k = floor(t_init (1 - k/K)). A sample takes n = K. Training draws n ~ Uniform{1..K} and differentiates the n-th
evaluation only, so that x_g is a sample of the mixture of all K steps' outputs and one network serves all steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from sid_jax.sid.guidance import Network
from sid_jax.sid.process import ForwardProcess

NOISE_TYPES = ("fresh", "fixed", "ddim")

Noise = Callable[[int | jax.Array], jax.Array]
"""k -> z_k, unit normals: float32 `[B, H, W, C]`."""


def noise_from_key(key: jax.Array, shape: tuple[int, ...]) -> Noise:
    """z_k ~ N(0, I) of the given `(B, H, W, C)`, drawn from `fold_in(key, k)`."""
    return lambda k: jax.random.normal(jax.random.fold_in(key, k), shape, jnp.float32)


def noise_from_array(noises: jax.Array) -> Noise:
    """z_k = noises[k], for noises `[K, B, H, W, C]`."""
    return lambda k: jnp.asarray(noises, jnp.float32)[k]


def check_noise_type(name: str) -> None:
    """Raises ValueError if there is no such noise type."""
    if name not in NOISE_TYPES:
        raise ValueError(f"sid.noise: {name!r} is not one of {', '.join(NOISE_TYPES)}")


@dataclass(frozen=True)
class FewStep:
    """A generator of K steps; its network and its noise are arguments of the methods.

    Attributes:
      process: the forward process, e.g. `VP`.
      num_steps: K.
      t_init: t_0, the time of the first step.
      noise_type: z_k after the first step: "fresh" a new draw, "fixed" always z_0, "ddim" the noise that the last
        step's input and output imply.

    Raises:
      ValueError: an unknown noise type, or steps that do not fit the process.
    """

    process: ForwardProcess
    num_steps: int
    t_init: int
    noise_type: str = "fresh"

    def __post_init__(self):
        check_noise_type(self.noise_type)
        self.process.step_times(self.t_init, self.num_steps)

    def generate(self, network: Network, noise: Noise, cond: Any) -> jax.Array:
        """A sample x_g `[B, H, W, C]` float32: all K evaluations, conditional, never with guidance.

        `network` is that of `guidance.Network`; `noise` is `noise_from_key(key, shape)` or `noise_from_array(noises)`.
        """
        return self.first_evaluations(network, noise, cond, self.num_steps)[0]

    def first_evaluations(self, network: Network, noise: Noise, cond: Any, count: int | jax.Array):
        """The first `count` evaluations: (x, z), both `[B, H, W, C]`, which `evaluate` continues from.

        A loop with a dynamic trip count: `count` may be an int32 scalar in [0, K], no evaluation is wasted, and
        nothing of it can be differentiated.
        """
        z = noise(0)
        carry = (jnp.zeros_like(z), z)
        if isinstance(count, int) and count <= 1:
            return self.evaluate(network, noise, cond, 0, *carry) if count else carry
        return jax.lax.fori_loop(0, count, lambda k, carry: self.evaluate(network, noise, cond, k, *carry), carry)

    def evaluate(self, network: Network, noise: Noise, cond: Any, k: int | jax.Array, x: jax.Array, z: jax.Array):
        """Evaluation k, from the (x, z) of those before it to its own."""
        if self.noise_type == "fresh":
            z = noise(k)
        times = jnp.asarray(self.process.step_times(self.t_init, self.num_steps))
        t = jnp.full(len(z), times[k])
        x_t = self.process.corrupt(jax.lax.stop_gradient(x), t, z)
        x = self.process.to_x0(x_t, t, network(x_t, t, cond).astype(jnp.float32))
        if self.noise_type == "ddim":
            z = self.process.noise_of(x_t, t, x)
        return x, z


def generate(
    network: Network,
    process: ForwardProcess,
    noise: Noise,
    cond: Any,
    *,
    num_steps: int,
    t_init: int,
    noise_type: str = "fresh",
) -> jax.Array:
    """`FewStep(process, num_steps, t_init, noise_type).generate(network, noise, cond)`, as one call."""
    return FewStep(process, num_steps, t_init, noise_type).generate(network, noise, cond)
