"""Forward processes: how an image is corrupted, and what a network's output says about it (section 2 of the method).

This is the only place where families of teachers differ: a further one (EDM, rectified flow) is one more class beside
`VP` with the methods of `ForwardProcess`.
"""

from typing import Protocol

import jax


class ForwardProcess(Protocol):
    """What the method asks of a process; `VP` says what each method means."""

    def scale(self, t: jax.Array) -> jax.Array: ...

    def sigma(self, t: jax.Array) -> jax.Array: ...

    def corrupt(self, x0: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array: ...

    def to_x0(self, x_t: jax.Array, t: jax.Array, output: jax.Array) -> jax.Array: ...

    def noise_of(self, x_t: jax.Array, t: jax.Array, x0: jax.Array) -> jax.Array: ...

    def fake_error(self, output: jax.Array, x0: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array: ...

    def fake_times(self, key: jax.Array, batch: int) -> jax.Array: ...

    def generator_times(self, key: jax.Array, batch: int) -> jax.Array: ...

    def step_times(self, t_init: int, num_steps: int) -> tuple[int, ...]: ...
