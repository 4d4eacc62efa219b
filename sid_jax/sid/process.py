"""Forward processes: how an image is corrupted, and what a network's output says about it (section 2 of the method).

Families of teachers differ in their process. A further one (EDM, rectified flow) is one more class beside `VP` with the
methods of `Process`. At which times the losses look is not the process's affair, but that of `times`.
"""

import abc
from typing import NamedTuple

import jax

Time = int | float
"""A time as a number: an int of VP's schedule, a sigma of EDM, a t in (0, 1] of rectified flow."""


class Draw(NamedTuple):
    """What a loss draws for each sample: its time t, `[B]`, and its noise e ~ N(0, I), float32 `[B, H, W, C]`."""

    t: jax.Array
    noise: jax.Array


class Process(abc.ABC):
    """A process x_t = a_t x0 + s_t e, and networks that were trained on it.

    Images and noise are float32 `[B, H, W, C]`, times `[B]` in the process's own type and unit.
    """

    @abc.abstractmethod
    def scale(self, t: jax.Array) -> jax.Array:
        """a_t: the factor of the image in x_t, float32 of the shape of t."""

    @abc.abstractmethod
    def sigma(self, t: jax.Array) -> jax.Array:
        """s_t: the factor of the noise in x_t, float32 of the shape of t."""

    @abc.abstractmethod
    def to_x0(self, x_t: jax.Array, t: jax.Array, output: jax.Array) -> jax.Array:
        """f(x_t, t): the clean image that a network's raw output stands for, all `[B, H, W, C]`."""

    @abc.abstractmethod
    def fake_target(self, x0: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
        """What the fake network's raw output is to be, `[B, H, W, C]`, in its own loss."""

    @abc.abstractmethod
    def fake_weight(self, t: jax.Array) -> jax.Array:
        """The weight of the square error of that output, `[B]` float32."""

    @abc.abstractmethod
    def default_start(self, num_steps: int) -> Time:
        """The published time of the first step of a generator of `num_steps` steps (section 7)."""

    @abc.abstractmethod
    def step_times(self, start: Time, num_steps: int) -> tuple[Time, ...]:
        """t_k, k = 0..K-1: the times of the few-step generator, the first of them `start` (section 4).

        Raises:
          ValueError: `start` is not a time of this process, or it has not so many times.
        """

    @abc.abstractmethod
    def check_range(self, name: str, low: Time, high: Time) -> None:
        """Raises ValueError, which calls the range by its `name`, if [low, high) is no range of its times."""

    def network_time(self, t: jax.Array) -> jax.Array:
        """What the network is told of t; here t itself."""
        return t

    def corrupt(self, x0: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
        """x_t = a_t x0 + s_t e, for x0 and e `[B, H, W, C]`, t `[B]`."""
        return each(self.scale(t)) * x0 + each(self.sigma(t)) * noise

    def noise_of(self, x_t: jax.Array, t: jax.Array, x0: jax.Array) -> jax.Array:
        """The noise e that makes x_t of x0: (x_t - a x0) / s. What the "ddim" generator carries from step to step."""
        return (x_t - each(self.scale(t)) * x0) / each(self.sigma(t))


def each(per_sample: jax.Array) -> jax.Array:
    """`[B]` to `[B, 1, 1, 1]`, a number for each image."""
    return per_sample[:, None, None, None]
