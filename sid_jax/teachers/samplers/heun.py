"""EDM's sampler, with which its teachers are measured: Heun's method of the second order, with fresh noise if wanted
(Karras et al. 2022, arXiv 2206.00364, algorithm 2)."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sid_jax.errors import UserError
from sid_jax.sid import Condition, Denoiser, Noise


@dataclass(frozen=True)
class Churn:
    """Noise that a sampler adds before its steps, so that errors of earlier steps are forgotten.

    Attributes:
      amount: S_churn, over all steps; 0 adds none.
      low, high: S_min and S_max: the noise levels from and to which some is added.
      scale: S_noise, the standard deviation of what is added.
    """

    amount: float = 0.0
    low: float = 0.0
    high: float = math.inf
    scale: float = 1.0


@dataclass(frozen=True)
class Heun:
    """A sampler of `num_steps` steps, of which each but the last evaluates the network twice; it has no guidance.

    The network's output is the denoised image D(x; sigma). Noise levels are those of Karras et al., equation 5:
    t_i = (a + i / (N - 1) (b - a))^rho with a = sigma_max^(1 / rho), b = sigma_min^(1 / rho), and t_N = 0.

    Attributes:
      num_steps: N.
      sigma_min, sigma_max, rho: of the noise levels.
      churn: of fresh noise; by default there is none, and z alone says what comes out.
      levels: the noise levels that the network knows, if it does not know all; each time becomes the nearest.
    """

    num_steps: int = 18
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    churn: Churn = Churn()
    levels: tuple[float, ...] = ()

    guidance_scale = None
    """Its teachers were not trained for guidance."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise UserError(f"Heun's sampler takes 1 or more steps, not {self.num_steps}")

    @property
    def times(self) -> tuple[float, ...]:
        """t_0..t_N."""
        i = np.arange(self.num_steps) / max(self.num_steps - 1, 1)
        high, low = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        return (*self._rounded((high + i * (low - high)) ** self.rho), 0.0)

    @property
    def raised_times(self) -> tuple[float, ...]:
        """The noise level of each step after noise was added, t'_0..t'_(N-1)."""
        churn, times = self.churn, np.array(self.times[:-1])
        most = min(churn.amount / self.num_steps, math.sqrt(2) - 1)
        gamma = np.where((churn.low <= times) & (times <= churn.high), most, 0.0)
        return self._rounded(times * (1 + gamma))

    def _rounded(self, times: np.ndarray) -> tuple[float, ...]:
        if self.levels:
            known = np.array(self.levels)
            times = known[np.argmin(np.abs(times[:, None] - known), axis=1)]
        return tuple(map(float, times))

    def generate(self, denoiser: Denoiser, noise: Noise, condition: Condition) -> jax.Array:
        """Images `[B, H, W, C]` from the unit noise `noise(0)` of that shape; step i adds of `noise(i + 1)`."""
        times, raised = np.array(self.times), np.array(self.raised_times)
        added = np.sqrt(np.maximum(raised**2 - times[:-1] ** 2, 0)) * self.churn.scale
        start = jnp.float32(times[0]) * noise(0)
        # One loop over evaluations: even ones are at the beginning of a step, odd ones where Euler's method ends it. So
        # the network is compiled once.
        steps = jnp.arange(2 * self.num_steps - 1) // 2
        at, change, deviations = (
            jnp.asarray(each, jnp.float32) for each in (_alternating(raised, times[1:]), times[1:] - raised, added)
        )

        def evaluate(j: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            x, base, first = carry
            i, begins = steps[j], j % 2 == 0
            if added.any():
                x = x + jnp.where(begins, deviations[i], 0.0) * noise(i + 1)
            output = denoiser(x, jnp.full(len(x), at[j]), condition.cond).astype(jnp.float32)
            slope = (x - output) / at[j]
            base = jnp.where(begins, x, base)
            x = base + change[i] * jnp.where(begins, slope, (first + slope) / 2)
            return x, base, slope

        x, *_ = jax.lax.fori_loop(0, len(steps), evaluate, (start, start, start))
        return x


def _alternating(raised: np.ndarray, following: np.ndarray) -> np.ndarray:
    """The noise level of each evaluation; the last step has one, as its second would be at 0."""
    return np.stack([raised, following], axis=1).ravel()[:-1]
