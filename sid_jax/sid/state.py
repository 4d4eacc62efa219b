"""What an iteration works on: the state that it changes, what stays frozen, a batch, and the networks as functions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from sid_jax.sid.settings import Optimizer


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """What changes during a run. Parameters, moments and the average are float32 trees of one structure.

    The images seen are `step * Settings.batch`; as an int32 they would overflow.
    """

    step: jax.Array
    """Iterations done, int32 scalar."""
    generator: Any
    """theta."""
    generator_optimizer: Any
    """Adam's state of theta: `count`, and `nu`, the second moment (`mu` too, where it has a first)."""
    fake: Any
    """psi."""
    fake_optimizer: Any
    """Adam's state of psi."""
    ema: Any
    """G_ema: what is sampled, evaluated and exported."""

    @classmethod
    def create(cls, trained: Any, optimizer: Optimizer | None = None, student: Any = None) -> "TrainState":
        """The state at step 0: theta, psi and G_ema are copies of what is trained of the teacher (section 1).

        Args:
          trained: of the teacher.
          optimizer: says which moments there are; by default one of each network.
          student: what theta and G_ema are copies of instead, a tree like `trained` (SiD2A, section 6).
        """
        optimizer = optimizer or Optimizer()

        def copy(tree: Any) -> Any:
            return jax.tree.map(lambda p: jnp.array(p, jnp.float32, copy=True), tree)

        first = trained if student is None else student
        generator, fake = copy(first), copy(trained)
        return cls(
            step=jnp.zeros((), jnp.int32),
            generator=generator,
            generator_optimizer=optimizer.of_generator.adam.init(generator),
            fake=fake,
            fake_optimizer=optimizer.of_fake.adam.init(fake),
            ema=copy(first),
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Frozen:
    """Parameters that a run never changes."""

    base: Any
    """phi, the teacher's denoiser; it is also what a trained part of the parameters is added to."""
    conditions: Any = ()
    """Of the networks that make conditions, such as text encoders."""
    space: Any = ()
    """Of the networks between images and what is diffused, such as an autoencoder; () where no step needs them."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Real:
    """Real images for the GAN term."""

    images: Any
    """`[B, ...]`: images uint8, or what is diffused in float32."""
    conditions: Any
    """What was read of their captions or labels, `[B, ...]`."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """What one iteration reads: trees of arrays whose first axis is the batch, and that of `empty` 1.

    `fake` and `generator`, for update A and B, are what was read of two different sets of prompts or labels.
    """

    fake: Any
    generator: Any
    empty: Any
    """What was read of the empty prompt."""
    real: Real | None = None


def _trained(base: Any, trained: Any) -> Any:
    return base if trained is None else trained


@dataclass(frozen=True)
class Networks:
    """The networks as functions of their parameters.

    Attributes:
      denoiser: (params, x_t `[B, H, W, C]`, t `[B]`, cond, dropout_key or None) -> raw output `[B, H, W, C]`. Teacher,
        fake network and generator share it. The precision of its arithmetic, and how it is told the time, are its own
        affair. Without a key nothing is dropped out.
      encode_condition: (params, what was read) -> cond; by default what was read is the condition.
      discriminator: the same evaluation as `denoiser`, which returns (raw output, logits `[B, ...]`); only the GAN
        term needs it.
      encode_images: (params, images) -> what is diffused `[B, H, W, C]`; by default the images themselves.
      combine: (base, trained) -> the denoiser's parameters, where `trained` is a tree of the train state, or None for
        the teacher itself. By default the trained tree is all there is to it.
      augment: (key, images `[B, H, W, C]`, cond) -> the images augmented, and the condition that says how; the fake
        network sees those in update A. None: it sees the images as they are.
      drops_out: whether the fake network is given a `dropout_key` in update A, and the generator in update B.
    """

    denoiser: Callable[[Any, jax.Array, jax.Array, Any, jax.Array | None], jax.Array]
    encode_condition: Callable[[Any, Any], Any] = lambda params, read: read
    discriminator: Callable[[Any, jax.Array, jax.Array, Any, jax.Array | None], tuple[jax.Array, jax.Array]] | None = (
        None
    )
    encode_images: Callable[[Any, Any], jax.Array] = lambda params, images: images
    combine: Callable[[Any, Any], Any] = _trained
    augment: Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]] | None = None
    drops_out: bool = False
