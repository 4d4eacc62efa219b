"""Processes for the tests: Stable Diffusion's, and one that shares nothing with it."""

import jax.numpy as jnp
import numpy as np

from sid_jax.sid import VP, Process

STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
"""Its scheduler's config."""


def stable_diffusion(prediction_type="epsilon", times=1000):
    """The process of that config, of which `times` is the number of times."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, times, dtype=np.float32) ** 2
    return VP(tuple(np.cumprod(1 - betas, dtype=np.float64)), prediction_type)


class RectifiedFlow(Process):
    """x_t = (1 - t) x0 + t e, t in (0, 1], and networks that are told 1000 t and predict e - x0."""

    def scale(self, t):
        return 1 - t

    def sigma(self, t):
        return t

    def to_x0(self, x_t, t, output):
        return x_t - t[:, None, None, None] * output

    def fake_target(self, x0, t, noise):
        return noise - x0

    def fake_weight(self, t):
        return jnp.ones_like(t)

    def network_time(self, t):
        return 1000 * t

    def default_start(self, num_steps):
        return 1.0

    def step_times(self, start, num_steps):
        return tuple(start * (1 - k / num_steps) for k in range(num_steps))

    def check_range(self, name, low, high):
        if not 0 < low < high <= 1:
            raise ValueError(f"{name}: 0 < t_min < t_max <= 1 is needed, not {low} and {high}")
