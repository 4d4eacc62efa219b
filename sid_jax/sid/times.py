"""At which times the two losses look: laws that the config chooses (section 2 of the method).

Sampling needs none of them. A further law (EDM's, rectified flow's) is one more class and one line in `LAWS`.
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


LAWS: dict[str, type[Times]] = {"uniform": Uniform}
"""By the name that the config has for them; a law's fields are keys of the config's group `sid`."""
