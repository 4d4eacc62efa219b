"""The numbers of a run, in groups as the config has them."""

from dataclasses import dataclass, field
from typing import NamedTuple

import optax

from sid_jax.sid.adam import adam
from sid_jax.sid.gan import Gan
from sid_jax.sid.guidance import Guidance
from sid_jax.sid.keys import MOST_SEED
from sid_jax.sid.losses import Loss


class Descent(NamedTuple):
    """How one network is changed by its gradient; its fields are explained in `Optimizer`.

    adam: but for the learning rate.
    """

    adam: optax.GradientTransformation
    learning_rate: float
    warmup: int
    clip_value: float | None
    clip_norm: float | None


@dataclass(frozen=True)
class Optimizer:
    """Adam of both networks; each field is a key of the config's group `optimizer`.

    Attributes:
      fake_lr, generator_lr: learning rates.
      fake_warmup, generator_warmup: images over which each rate grows linearly to that, counted from the first update
        of its own network; 0: it is there from the start.
      generator_beta1: decay of the generator's first moment; 0: it has none, as the fake network has none.
      beta2: decay of the second moment.
      eps: added to its root.
      clip_value: largest entry of a gradient; None: no matter.
      clip_fake: the same of the fake network's gradient alone, whose limit it is where both are set.
      clip_norm: largest norm of a network's whole gradient, after its entries are limited; None: no matter.

    Raises:
      ValueError: a value that makes no sense, by the name of its key.
    """

    fake_lr: float = 1e-6
    generator_lr: float = 1e-6
    fake_warmup: int = 0
    generator_warmup: int = 0
    generator_beta1: float = 0.0
    beta2: float = 0.999
    eps: float = 1e-8
    clip_value: float | None = None
    clip_fake: float | None = None
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        _require(
            ("optimizer.fake_lr", self.fake_lr, self.fake_lr >= 0, "at least 0"),
            ("optimizer.generator_lr", self.generator_lr, self.generator_lr >= 0, "at least 0"),
            ("optimizer.fake_warmup", self.fake_warmup, self.fake_warmup >= 0, "at least 0"),
            ("optimizer.generator_warmup", self.generator_warmup, self.generator_warmup >= 0, "at least 0"),
            ("optimizer.generator_beta1", self.generator_beta1, 0 <= self.generator_beta1 < 1, "in [0, 1)"),
            ("optimizer.beta2", self.beta2, 0 <= self.beta2 < 1, "in [0, 1)"),
            ("optimizer.eps", self.eps, self.eps > 0, "positive"),
            ("optimizer.clip_value", self.clip_value, self.clip_value is None or self.clip_value > 0, "positive"),
            ("optimizer.clip_fake", self.clip_fake, self.clip_fake is None or self.clip_fake > 0, "positive"),
            ("optimizer.clip_norm", self.clip_norm, self.clip_norm is None or self.clip_norm > 0, "positive"),
        )

    @property
    def largest_of_fake(self) -> float | None:
        """The largest entry of the fake network's gradient; None: no matter. The generator's is `clip_value`."""
        return self.clip_value if self.clip_fake is None else self.clip_fake

    @property
    def of_fake(self) -> Descent:
        """How the fake network is changed."""
        optimizer = adam(0.0, self.beta2, self.eps)
        return Descent(optimizer, self.fake_lr, self.fake_warmup, self.largest_of_fake, self.clip_norm)

    @property
    def of_generator(self) -> Descent:
        """How the generator is changed."""
        optimizer = adam(self.generator_beta1, self.beta2, self.eps)
        return Descent(optimizer, self.generator_lr, self.generator_warmup, self.clip_value, self.clip_norm)


@dataclass(frozen=True)
class Ema:
    """The moving average; each field is a key of the config's group `ema`.

    Attributes:
      half_life: in images.
      ramp_up: the share of the images seen that the half-life may reach; None: no ramp-up.

    Raises:
      ValueError: a negative number, by the name of its key.
    """

    half_life: float = 50_000
    ramp_up: float | None = 0.05

    def __post_init__(self) -> None:
        _require(
            ("ema.half_life", self.half_life, self.half_life >= 0, "at least 0"),
            ("ema.ramp_up", self.ramp_up, self.ramp_up is None or self.ramp_up >= 0, "at least 0"),
        )


class Phase(NamedTuple):
    """What an iteration does: static, so that what is left out costs nothing. A run has up to three, one after another.

    generator: whether the generator is trained: updates B and C.
    adversarial: whether its loss has the GAN term.
    """

    generator: bool
    adversarial: bool


@dataclass(frozen=True)
class Settings:
    """The numbers of an iteration.

    Attributes:
      batch: images an update, over all devices.
      shape: (H, W, C) of an image or latent.
      seed: what all random draws derive from.
      accumulation: micro-batches that a batch is processed in, one after the other.
      loss, guidance, gan, optimizer, ema: see there.

    Raises:
      ValueError: a value that makes no sense, by the name of its key.
    """

    batch: int
    shape: tuple[int, ...]
    seed: int = 0
    accumulation: int = 1
    loss: Loss = field(default_factory=Loss)
    guidance: Guidance = field(default_factory=Guidance)
    gan: Gan = field(default_factory=Gan)
    optimizer: Optimizer = field(default_factory=Optimizer)
    ema: Ema = field(default_factory=Ema)

    def __post_init__(self) -> None:
        _require(
            ("batch", self.batch, self.batch >= 1, "at least 1"),
            ("accumulation", self.accumulation, self.accumulation >= 1, "at least 1"),
            ("seed", self.seed, 0 <= self.seed <= MOST_SEED, f"in [0, {MOST_SEED}]"),
            ("resolution", self.shape, len(self.shape) == 3, "a shape (H, W, C)"),
        )
        if self.batch % self.accumulation:
            raise ValueError(f"batch: {self.batch} is not a multiple of accumulation, {self.accumulation}")
        self.gan.check_group(self.batch // self.accumulation)

    def phase(self, step: int) -> Phase:
        """What iteration `step`, counted from 0, does (section 6)."""
        seen = step * self.batch
        if not self.gan.is_over(self.gan.freeze, seen):
            return Phase(generator=False, adversarial=False)
        return Phase(generator=True, adversarial=self.gan.lambda_g > 0 and self.gan.is_over(self.gan.start, seen))

    @property
    def last_phase(self) -> Phase:
        """The phase that a run ends in, and the one that costs most."""
        return Phase(generator=True, adversarial=self.gan.lambda_g > 0)

    @property
    def frozen_steps(self) -> int:
        """Iterations before the generator is trained."""
        return self.gan.frozen_steps(self.batch)


def _require(*requirements: tuple[str, object, bool, str]) -> None:
    """Raises ValueError for the first (key, value, whether it holds, what is wanted) that does not hold."""
    for key, value, holds, wanted in requirements:
        if not holds:
            raise ValueError(f"{key}: {value} is not {wanted}")
