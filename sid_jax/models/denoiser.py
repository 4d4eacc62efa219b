"""What a network that is distilled must offer."""

from typing import Any, Protocol, runtime_checkable

import jax


@runtime_checkable
class DenoiserModule(Protocol):
    """A network that is distilled: what `sid` calls of the teacher, the fake network and the generator.

    `x` is a batch of noisy images or latents `[B, H, W, C]` and `t` their times `[B]`, as the process of the family
    states them to the network. `cond` are the network's own conditions, by keyword: arrays whose first axis is B, or
    dicts of such arrays. `dropout_key` is a key of `jax.random` with which dropout is on; None turns it off. A network
    without dropout takes the key all the same, and ignores it.
    """

    def __call__(self, x: jax.Array, t: jax.Array, *, dropout_key: jax.Array | None = None, **cond: Any) -> jax.Array:
        """The raw output `[B, H, W, C]`: the first of what `with_features` returns for the same arguments."""
        ...

    def with_features(
        self, x: jax.Array, t: jax.Array, *, dropout_key: jax.Array | None = None, **cond: Any
    ) -> tuple[jax.Array, jax.Array]:
        """The raw output `[B, H, W, C]`, and the features that the discriminator looks at.

        The shape of the features is the network's own: `[B, h, w, D]` of a convolutional network, `[B, L, D]` of a
        transformer.
        """
        ...

    def features(self, x: jax.Array, t: jax.Array, *, dropout_key: jax.Array | None = None, **cond: Any) -> jax.Array:
        """The second of what `with_features` returns. XLA leaves out what only the output needs."""
        ...

    def logits(self, features: jax.Array) -> jax.Array:
        """The discriminator's logits of features: float32, not clipped, of any shape whose first axis is B."""
        ...
