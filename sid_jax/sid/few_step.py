"""The few-step generator and the uniform mixture of its steps (section 4; Few-Step SiD, arXiv 2505.12674).

```
x = 0
for k in 0..n-1:
    x_t = a(t_k) stop_gradient(x) + s(t_k) z_k
    x   = x0-prediction of G_theta(x_t, t_k, c)
```

with t_k the process's `step_times`. A sample takes n = K. Training draws n ~ Uniform{1..K} and differentiates the n-th
evaluation only, so that x_g is a sample of the mixture of all K steps' outputs and one network serves all steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from sid_jax.sid.guidance import Condition, Denoiser
from sid_jax.sid.process import Process, Time

NOISE_TYPES = ("fresh", "fixed", "ddim")
FIRST_INPUTS = ("scaled", "unit")

Noise = Callable[[int | jax.Array], jax.Array]
"""k -> z_k, unit normals: float32 `[B, H, W, C]`."""


def noise_from_key(key: jax.Array, shape: tuple[int, ...]) -> Noise:
    """z_k ~ N(0, I) of the given `(B, H, W, C)`, drawn from `fold_in(key, k)`."""
    return lambda k: jax.random.normal(jax.random.fold_in(key, k), shape, jnp.float32)


def noise_from_array(noises: jax.Array) -> Noise:
    """z_k = noises[k], for noises `[K, B, H, W, C]`."""
    return lambda k: jnp.asarray(noises, jnp.float32)[k]


@dataclass(frozen=True)
class FewStep:
    """A generator of K steps; its network and its noise are arguments of the methods.

    Attributes:
      process: the forward process, e.g. `VP`.
      num_steps: K.
      start: t_0, the time of the first step.
      noise: z_k after the first step: "fresh" a new draw, "fixed" always z_0, "ddim" the noise that the last step's
        input and output imply.
      first: what the first step is given: "scaled", s(t_0) z_0, as published, or "unit", z_0 itself, as the stock
        samplers of LCM begin.

    Raises:
      ValueError: an unknown name, or steps that do not fit the process.
    """

    process: Process
    num_steps: int
    start: Time
    noise: str = "fresh"
    first: str = "scaled"

    guidance_scale: ClassVar[None] = None
    """A student is sampled without guidance; a teacher's sampler has a number here."""

    def __post_init__(self) -> None:
        for key, value, known in (("noise", self.noise, NOISE_TYPES), ("first", self.first, FIRST_INPUTS)):
            if value not in known:
                raise ValueError(f"sid.{key}: {value!r} is not one of {', '.join(known)}")
        self.times  # noqa: B018 -- raises where the steps don't fit

    @property
    def times(self) -> tuple[Time, ...]:
        """t_0..t_{K-1}."""
        return self.process.step_times(self.start, self.num_steps)

    def generate(self, denoiser: Denoiser, noise: Noise, condition: Condition) -> jax.Array:
        """A sample x_g `[B, H, W, C]` float32: all K evaluations, conditional, never with guidance.

        `denoiser` is a `guidance.Denoiser`; `noise` is `noise_from_key(key, shape)` or `noise_from_array(noises)`.
        """
        return self.first_evaluations(denoiser, noise, condition.cond, self.num_steps)[0]

    def first_evaluations(
        self, denoiser: Denoiser, noise: Noise, cond: Any, count: int | jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The first `count` evaluations: (x, z), both `[B, H, W, C]`, which `evaluate` continues from.

        A loop with a dynamic trip count: `count` may be an int32 scalar in [0, K], no evaluation is wasted, and
        nothing of it can be differentiated.
        """
        z = noise(0)
        carry = (jnp.zeros_like(z), z)
        if isinstance(count, int) and count <= 1:
            return self.evaluate(denoiser, noise, cond, 0, *carry) if count else carry
        carry = jax.lax.fori_loop(0, count, lambda k, carry: self.evaluate(denoiser, noise, cond, k, *carry), carry)
        x, z = carry
        return x, z

    def evaluate(
        self, denoiser: Denoiser, noise: Noise, cond: Any, k: int | jax.Array, x: jax.Array, z: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Evaluation k, from the (x, z) of those before it to its own."""
        if self.noise == "fresh":
            z = noise(k)
        t = jnp.full(len(z), jnp.asarray(self.times)[k])
        x_t = self.process.corrupt(jax.lax.stop_gradient(x), t, z)
        if self.first == "unit":
            x_t = jnp.where(k == 0, z, x_t)
        x = self.process.to_x0(x_t, t, denoiser(x_t, t, cond).astype(jnp.float32))
        if self.noise == "ddim":
            z = self.process.noise_of(x_t, t, x)
        return x, z
