"""At which times the two losses look: laws that the config chooses (section 2 of the method).

Sampling needs none of them. A further law (rectified flow's) is one more class and one line in `LAWS`.
"""

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

from sid_jax.sid.process import Process, Time


class Times(Protocol):
    """The laws of the times of both losses."""

    def fake(self, key: jax.Array, batch: int) -> jax.Array:
        """t of the fake network's loss, `[batch]`."""
        ...

    def generator(self, key: jax.Array, batch: int) -> jax.Array:
        """t of the generator's loss, `[batch]`."""
        ...

    def check(self, process: Process) -> None:
        """Raises ValueError, by the name of the config's key, if these are not times of the process."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Times of both losses are uniform in [t_min, t_max): int32 where both are ints, else float32."""

    t_min: Time = 20
    t_max: Time = 980

    def fake(self, key: jax.Array, batch: int) -> jax.Array:
        """`[batch]` times."""
        if isinstance(self.t_min, int) and isinstance(self.t_max, int):
            return jax.random.randint(key, (batch,), self.t_min, self.t_max, jnp.int32)
        return jax.random.uniform(key, (batch,), jnp.float32, self.t_min, self.t_max)

    def generator(self, key: jax.Array, batch: int) -> jax.Array:
        """`[batch]` times."""
        return self.fake(key, batch)

    def check(self, process: Process) -> None:
        """Raises ValueError if the process has not these times."""
        process.check_range("sid.t_min, sid.t_max", self.t_min, self.t_max)


@dataclass(frozen=True)
class LogNormalKarras:
    """Times of EDM, which are noise levels, float32 (SiD, arXiv 2404.04057).

    The fake network's, as EDM trains: ln t ~ N(p_mean, p_std^2). The generator's, as EDM samples:
    t = (sigma_max^(1/rho) + (1 - u) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho, u ~ U(0, u_max), which is sigma_min
    at u = 0 and sigma_max at u = 1.

    Raises:
      ValueError: a number that makes no sense, by the name of its key.
    """

    p_mean: float = -1.2
    p_std: float = 1.2
    u_max: float = 0.8
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        for name, holds, wanted in (
            ("p_std", self.p_std >= 0, "at least 0"),
            ("u_max", 0 < self.u_max <= 1, "in (0, 1]"),
            ("rho", self.rho > 0, "positive"),
        ):
            if not holds:
                raise ValueError(f"sid.{name}: {getattr(self, name)} is not {wanted}")

    def fake(self, key: jax.Array, batch: int) -> jax.Array:
        """`[batch]` times."""
        return jnp.exp(self.p_mean + self.p_std * jax.random.normal(key, (batch,), jnp.float32))

    def generator(self, key: jax.Array, batch: int) -> jax.Array:
        """`[batch]` times."""
        u = jax.random.uniform(key, (batch,), jnp.float32, 0.0, self.u_max)
        low, high = (sigma ** (1 / self.rho) for sigma in (self.sigma_min, self.sigma_max))
        return jnp.asarray((high + (1 - u) * (low - high)) ** self.rho)

    def check(self, process: Process) -> None:
        """Raises ValueError if the process has not the times between sigma_min and sigma_max."""
        process.check_range("sid.sigma_min, sid.sigma_max", self.sigma_min, self.sigma_max)


LAWS: dict[str, type[Times]] = {"uniform": Uniform, "lognormal_karras": LogNormalKarras}
"""By the name that the config has for them; a law's fields are keys of the config's group `sid`."""
