"""The variance-exploding process of EDM, in pixels (section 2 of the method; Karras et al. 2022, arXiv 2206.00364)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from sid_jax.sid.process import Process, Time

FIRST_SIGMA = 2.5
"""sigma_init: the noise that one-step students are published with."""


@dataclass(frozen=True)
class EDM(Process):
    """The process x_t = x0 + t e: a time *is* a noise level sigma, float32. A raw output is the image D(x; sigma).

    How a network makes D of its own output, its preconditioning, is the network's affair.

    Attributes:
      sigma_min, sigma_max: the noise levels that its networks are used with.
      rho: of Karras' spacing, in which the steps of a student are equally far apart.
      sigma_data: the standard deviation of the images, which the weight of the fake network's loss depends on.

    Raises:
      ValueError: numbers that are no range, or not positive.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min, sigma_max: {self.sigma_min} and {self.sigma_max} are not 0 < min < max")
        for name in ("rho", "sigma_data"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)} is not positive")

    def scale(self, t: jax.Array) -> jax.Array:
        """1: the image is left as it is."""
        return jnp.ones(t.shape, jnp.float32)

    def sigma(self, t: jax.Array) -> jax.Array:
        """t."""
        return t.astype(jnp.float32)

    def to_x0(self, x_t: jax.Array, t: jax.Array, output: jax.Array) -> jax.Array:
        """The output, which is D(x_t; t)."""
        return output

    def fake_target(self, x0: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
        """The clean image."""
        return x0

    def fake_weight(self, t: jax.Array) -> jax.Array:
        """omega = (t^2 + sigma_data^2) / (t sigma_data)^2, with which the loss of EDM has the same size at all t."""
        t, data = self.sigma(t), self.sigma_data
        return (t**2 + data**2) / (t * data) ** 2

    def default_start(self, num_steps: int) -> float:
        """sigma_init = 2.5 (SiD, arXiv 2404.04057); no number is published for several steps."""
        return FIRST_SIGMA

    def step_times(self, start: Time, num_steps: int) -> tuple[float, ...]:
        """t_k = (start^(1/rho) (1 - k/K) + sigma_min^(1/rho) k/K)^rho, k = 0..K-1.

        Raises:
          ValueError: the start is not in [sigma_min, sigma_max], or there is no room for K times.
        """
        if not self.sigma_min <= start <= self.sigma_max:
            raise ValueError(f"sid.t_init: {start} is not in [{self.sigma_min}, {self.sigma_max}]")
        if num_steps < 1 or (num_steps > 1 and start == self.sigma_min):
            raise ValueError(
                f"sid.num_steps: {num_steps} is not at least 1, or sid.t_init = {start} leaves no room for it"
            )
        first, last = start ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        between = (first + k / num_steps * (last - first) for k in range(1, num_steps))
        return (float(start), *(root**self.rho for root in between))

    def check_range(self, name: str, low: Time, high: Time) -> None:
        """Raises ValueError if [low, high) is not a range in [sigma_min, sigma_max]."""
        if not self.sigma_min <= low < high <= self.sigma_max:
            raise ValueError(
                f"{name}: {self.sigma_min} <= min < max <= {self.sigma_max} is needed, not {low} and {high}"
            )

    def network_time(self, t: jax.Array) -> jax.Array:
        """The noise level, float32."""
        return self.sigma(t)
