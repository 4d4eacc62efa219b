"""The discrete variance-preserving process of Stable Diffusion (section 2 of the method)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

PREDICTION_TYPES = ("epsilon", "v_prediction")


BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")


MOST_TIMES = 100_000  # a scheduler's; published ones have 1,000


@dataclass(frozen=True)
class VP:
    """The discrete variance-preserving process x_t = a_t x0 + s_t e of Stable Diffusion (Ho et al., arXiv 2006.11239).

    With abar the cumulative product of the teacher's alphas, a_t = sqrt(abar_t) and s_t = sqrt(1 - abar_t). Times are
    int32 in [0, T), T = len(alphas_cumprod); images and noise are float32 `[B, H, W, C]`.

    Attributes:
      alphas_cumprod: abar_t of every time, T floats in (0, 1).
      prediction_type: what the networks predict, "epsilon" or "v_prediction" (Salimans and Ho, arXiv 2202.00512).
      t_min, t_max: the times of both losses are uniform in [t_min, t_max).

    Raises:
      ValueError: an unknown prediction type, or times outside [0, T].
    """

    alphas_cumprod: Sequence[float]
    prediction_type: str = "epsilon"
    t_min: int = 20
    t_max: int = 980

    def __post_init__(self):
        abar = tuple(float(value) for value in np.asarray(self.alphas_cumprod, np.float32))
        object.__setattr__(self, "alphas_cumprod", abar)
        if not abar or not all(0 < value < 1 for value in abar):
            raise ValueError("alphas_cumprod: every value must be in (0, 1), and there must be at least one")
        if self.prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"scheduler_config.json: prediction_type {self.prediction_type!r} "
                f"is not one of {', '.join(PREDICTION_TYPES)}"
            )
        if not 0 <= self.t_min < self.t_max <= len(abar):
            raise ValueError(
                f"sid.t_min, sid.t_max: 0 <= t_min < t_max <= {len(abar)} is needed, not {self.t_min} and {self.t_max}"
            )

    @classmethod
    def from_scheduler(cls, scheduler_config: Mapping, t_min: int = 20, t_max: int = 980) -> "VP":
        """The process of a teacher, from the contents of its diffusers `scheduler_config.json`.

        Raises:
          ValueError: the config describes a process that is not variance-preserving with eps or v prediction.
        """
        name = scheduler_config.get("_class_name", "")
        if name.startswith("FlowMatch") or scheduler_config.get("use_flow_sigmas"):
            raise ValueError(f"scheduler_config.json: {name} is a flow-matching scheduler; the process here is VP")
        if scheduler_config.get("rescale_betas_zero_snr"):
            raise ValueError(
                "scheduler_config.json: rescale_betas_zero_snr must be false; "
                "at zero terminal signal the network's output does not determine x0"
            )
        abar = np.cumprod(1 - _betas(scheduler_config), dtype=np.float64)
        return cls(tuple(abar), scheduler_config.get("prediction_type", "epsilon"), t_min, t_max)

    def scale(self, t: jax.Array) -> jax.Array:
        """a_t: the factor of the image in x_t. Any int array to float32 of its shape."""
        return jnp.sqrt(self._abar(t))

    def sigma(self, t: jax.Array) -> jax.Array:
        """s_t: the factor of the noise in x_t. Any int array to float32 of its shape."""
        return jnp.sqrt(1 - self._abar(t))

    def corrupt(self, x0: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
        """x_t = a_t x0 + s_t e, for x0 and e `[B, H, W, C]`, t `[B]`."""
        return _each(self.scale(t)) * x0 + _each(self.sigma(t)) * noise

    def to_x0(self, x_t: jax.Array, t: jax.Array, output: jax.Array) -> jax.Array:
        """f(x_t, t): the clean image that a raw output `[B, H, W, C]` stands for.

        eps: (x_t - s e_hat) / a. v: a x_t - s v_hat.
        """
        a, s = _each(self.scale(t)), _each(self.sigma(t))
        if self.prediction_type == "epsilon":
            return (x_t - s * output) / a
        return a * x_t - s * output

    def noise_of(self, x_t: jax.Array, t: jax.Array, x0: jax.Array) -> jax.Array:
        """The noise e that makes x_t of x0: (x_t - a x0) / s. What the "ddim" generator carries from step to step."""
        return (x_t - _each(self.scale(t)) * x0) / _each(self.sigma(t))

    def fake_error(self, output: jax.Array, x0: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
        """The fake network's denoising error, per element `[B, H, W, C]`.

        eps: (e_hat - e)^2. v: (v_hat - v)^2 snr / (snr + 1), v = a e - s x0, where snr / (snr + 1) = abar.
        """
        if self.prediction_type == "epsilon":
            return jnp.square(output - noise)
        velocity = _each(self.scale(t)) * noise - _each(self.sigma(t)) * x0
        return _each(self._abar(t)) * jnp.square(output - velocity)

    def fake_times(self, key: jax.Array, batch: int) -> jax.Array:
        """Times of the fake network's loss: `[batch]` int32, uniform in [t_min, t_max)."""
        return jax.random.randint(key, (batch,), self.t_min, self.t_max, jnp.int32)

    def generator_times(self, key: jax.Array, batch: int) -> jax.Array:
        """Times of the generator's loss: `[batch]` int32, uniform in [t_min, t_max)."""
        return jax.random.randint(key, (batch,), self.t_min, self.t_max, jnp.int32)

    def step_times(self, t_init: int, num_steps: int) -> tuple[int, ...]:
        """t_k = floor(t_init (1 - k/K)), k = 0..K-1: the times of the few-step generator (section 4).

        Raises:
          ValueError: t_init is not a time of this process, or two of the K times are equal.
        """
        if not 0 <= t_init < len(self.alphas_cumprod):
            raise ValueError(f"sid.t_init: {t_init} is not in [0, {len(self.alphas_cumprod)})")
        if not 1 <= num_steps <= max(t_init, 1):
            raise ValueError(
                f"sid.num_steps: {num_steps} is not in [1, {max(t_init, 1)}], as sid.t_init = {t_init} needs"
            )
        return tuple(t_init * (num_steps - k) // num_steps for k in range(num_steps))

    def _abar(self, t: jax.Array) -> jax.Array:
        return jnp.asarray(np.asarray(self.alphas_cumprod, np.float32))[t]


def _each(per_sample: jax.Array) -> jax.Array:
    """`[B]` to `[B, 1, 1, 1]`."""
    return per_sample[:, None, None, None]


def _betas(config: Mapping) -> np.ndarray:
    """The betas of a diffusers scheduler, rounded to float32 where diffusers rounds, with diffusers' defaults."""
    trained = config.get("trained_betas")
    if trained is not None:
        if not isinstance(trained, list) or not all(map(_is_beta, trained)):
            raise ValueError("scheduler_config.json: trained_betas is not a list of numbers in (0, 1)")
        return np.asarray(trained, np.float32)
    schedule = config.get("beta_schedule", "linear")
    steps = config.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 1 <= steps <= MOST_TIMES:
        raise ValueError(f"scheduler_config.json: num_train_timesteps {steps!r} is not in [1, {MOST_TIMES}]")
    start, end = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)
    for name, value in (("beta_start", start), ("beta_end", end)):
        if not _is_beta(value):
            raise ValueError(f"scheduler_config.json: {name} {value!r} is not in (0, 1)")
    if schedule == "linear":
        return np.linspace(start, end, steps, dtype=np.float32)
    if schedule == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, steps, dtype=np.float32) ** 2
    if schedule == "squaredcos_cap_v2":
        signal = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - signal[1:] / signal[:-1], 0.999).astype(np.float32)
    raise ValueError(f"scheduler_config.json: beta_schedule {schedule!r} is not one of {', '.join(BETA_SCHEDULES)}")


def _is_beta(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < 1
