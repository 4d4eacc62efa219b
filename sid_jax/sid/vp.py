"""The discrete variance-preserving process of Stable Diffusion (section 2 of the method)."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sid_jax.sid.process import Process, Time, each

PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class VP(Process):
    """The process x_t = a_t x0 + s_t e of Stable Diffusion (Ho et al., arXiv 2006.11239).

    With abar the cumulative product of the teacher's alphas, a_t = sqrt(abar_t) and s_t = sqrt(1 - abar_t). Times are
    int32 in [0, T), T = len(alphas_cumprod); images and noise are float32 `[B, H, W, C]`.

    With v prediction the last abar may be 0 (zero terminal SNR, Lin et al. 2024, arXiv 2305.08891): there x_t is e, and
    x0 = -v. With eps prediction x0 would be divided by a = 0.

    Attributes:
      alphas_cumprod: abar_t of every time, T floats in (0, 1); with v prediction the last may be 0.
      prediction_type: what the networks predict, "epsilon" or "v_prediction" (Salimans and Ho, arXiv 2202.00512).

    Raises:
      ValueError: an unknown prediction type, or another value.
    """

    alphas_cumprod: Sequence[float]
    prediction_type: str = "epsilon"

    def __post_init__(self) -> None:
        abar = tuple(float(value) for value in np.asarray(self.alphas_cumprod, np.float32))
        object.__setattr__(self, "alphas_cumprod", abar)
        if self.prediction_type not in PREDICTION_TYPES:
            raise ValueError(f"prediction_type: {self.prediction_type!r} is not one of {', '.join(PREDICTION_TYPES)}")
        checked = abar[:-1] if self.prediction_type == "v_prediction" and self.zero_terminal_snr else abar
        if not checked or not all(0 < value < 1 for value in checked):
            raise ValueError("alphas_cumprod: every value must be in (0, 1), and there must be at least one")

    @property
    def zero_terminal_snr(self) -> bool:
        """Whether nothing is left of the image at the last time."""
        return bool(self.alphas_cumprod) and self.alphas_cumprod[-1] == 0

    def scale(self, t: jax.Array) -> jax.Array:
        """a_t: the factor of the image in x_t. Any int array to float32 of its shape."""
        return jnp.sqrt(self._abar(t))

    def sigma(self, t: jax.Array) -> jax.Array:
        """s_t: the factor of the noise in x_t. Any int array to float32 of its shape."""
        return jnp.sqrt(1 - self._abar(t))

    def to_x0(self, x_t: jax.Array, t: jax.Array, output: jax.Array) -> jax.Array:
        """f(x_t, t): the clean image that a raw output `[B, H, W, C]` stands for.

        eps: (x_t - s e_hat) / a. v: a x_t - s v_hat.
        """
        a, s = each(self.scale(t)), each(self.sigma(t))
        if self.prediction_type == "epsilon":
            return (x_t - s * output) / a
        return a * x_t - s * output

    def fake_target(self, x0: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
        """eps: e. v: v = a e - s x0."""
        if self.prediction_type == "epsilon":
            return noise
        return each(self.scale(t)) * noise - each(self.sigma(t)) * x0

    def fake_weight(self, t: jax.Array) -> jax.Array:
        """eps: 1. v: snr / (snr + 1), which is abar."""
        return jnp.ones(t.shape, jnp.float32) if self.prediction_type == "epsilon" else self._abar(t)

    def default_start(self, num_steps: int) -> int:
        """625 of 1000 for one step (SiD-LSG, arXiv 2406.01561), the last time for several (arXiv 2509.25127)."""
        total = len(self.alphas_cumprod)
        return total * 625 // 1000 if num_steps == 1 else total - 1

    def step_times(self, start: Time, num_steps: int) -> tuple[int, ...]:
        """t_k = floor(t_init (1 - k/K)), k = 0..K-1, with t_init the `start`.

        Raises:
          ValueError: t_init is not a time of this process, or two of the K times are equal.
        """
        if not isinstance(start, int) or not 0 <= start < len(self.alphas_cumprod):
            raise ValueError(f"sid.t_init: {start} is not in [0, {len(self.alphas_cumprod)})")
        if not 1 <= num_steps <= max(start, 1):
            raise ValueError(
                f"sid.num_steps: {num_steps} is not in [1, {max(start, 1)}], as sid.t_init = {start} needs"
            )
        return tuple(start * (num_steps - k) // num_steps for k in range(num_steps))

    def check_range(self, name: str, low: Time, high: Time) -> None:
        """Raises ValueError if [low, high) is not a range of ints in [0, T)."""
        total = len(self.alphas_cumprod)
        if not (isinstance(low, int) and isinstance(high, int) and 0 <= low < high <= total):
            raise ValueError(f"{name}: 0 <= t_min < t_max <= {total} is needed, not {low} and {high}")

    def _abar(self, t: jax.Array) -> jax.Array:
        return jnp.asarray(np.asarray(self.alphas_cumprod, np.float32))[t]
