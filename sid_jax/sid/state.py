"""What a run consists of: its state, its networks as functions, and its numbers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sid_jax.sid.few_step import check_noise_type
from sid_jax.sid.gan import Gan
from sid_jax.sid.guidance import Guidance
from sid_jax.sid.losses import check_weighting


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
    generator_moment: Any
    """Adam's v of theta."""
    fake: Any
    """psi."""
    fake_moment: Any
    """Adam's v of psi."""
    ema: Any
    """G_ema: what is sampled, evaluated and exported."""

    @classmethod
    def create(cls, teacher_params: Any) -> "TrainState":
        """The state at step 0: theta, psi and G_ema are copies of the teacher's parameters (section 1)."""

        def copy():
            return jax.tree.map(lambda p: jnp.array(p, jnp.float32, copy=True), teacher_params)

        def zeros():
            return jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), teacher_params)

        return cls(jnp.zeros((), jnp.int32), copy(), zeros(), copy(), zeros(), copy())


@dataclass(frozen=True)
class Networks:
    """The networks as functions of their parameters.

    Attributes:
      unet: (params, x_t `[B, H, W, C]`, t `[B]` int32, cond) -> raw output `[B, H, W, C]`. Teacher, fake network and
        generator share it. The precision of its arithmetic is its own affair.
      encode: (text_params, tokens) -> cond; by default the tokens are the condition, e.g. precomputed embeddings.
      unet_with_bottleneck: the same evaluation as `unet`, which returns (raw output, bottleneck `[B, h, w, D]`); only
        the GAN term needs it.
      encode_images: (vae_params, images) -> real latents `[B, H, W, C]`; by default the images are latents already.
    """

    unet: Callable[[Any, jax.Array, jax.Array, Any], jax.Array]
    encode: Callable[[Any, Any], Any] = lambda text_params, tokens: tokens
    unet_with_bottleneck: Callable[[Any, jax.Array, jax.Array, Any], tuple[jax.Array, jax.Array]] | None = None
    encode_images: Callable[[Any, Any], jax.Array] = lambda vae_params, images: images


class Phase(NamedTuple):
    """What an iteration does: static, so that what is left out costs nothing. A run has up to three, one after another.

    generator: whether the generator is trained: updates B and C.
    adversarial: whether its loss has the GAN term.
    """

    generator: bool
    adversarial: bool


@dataclass(frozen=True)
class Settings:
    """The numbers of a run; each comment is the key of the run's config that it comes from.

    Raises:
      ValueError: a value that does not make sense, by the name of its key.
    """

    batch: int  # batch
    latent_shape: tuple[int, int, int]  # (H, W, C) of an image or latent
    seed: int = 0  # seed
    accumulation: int = 1  # accumulation
    num_steps: int = 1  # sid.num_steps, K
    t_init: int = 625  # sid.t_init
    noise: str = "fresh"  # sid.noise
    alpha: float = 1.0  # sid.alpha
    weighting: str = "sid"  # sid.weighting
    loss_scale: float = 1.0  # sid.loss_scale, lambda_sid
    guidance: Guidance = field(default_factory=Guidance)  # guidance
    gan: Gan = field(default_factory=Gan)  # gan
    lr: float = 1e-6  # optimizer.lr, of the fake network
    glr: float = 1e-6  # optimizer.glr, of the generator
    beta2: float = 0.999  # optimizer.beta2
    eps: float = 1e-8  # optimizer.eps
    clip_value: float | None = None  # optimizer.clip_value
    half_life: float = 50_000  # ema.half_life, images
    ramp_up: float | None = 0.05  # ema.ramp_up

    def __post_init__(self):
        check_weighting(self.weighting)
        check_noise_type(self.noise)
        requirements = (
            ("batch", self.batch, self.batch >= 1, "at least 1"),
            ("accumulation", self.accumulation, self.accumulation >= 1, "at least 1"),
            ("resolution", self.latent_shape, len(self.latent_shape) == 3, "a latent shape (H, W, C)"),
            ("sid.num_steps", self.num_steps, self.num_steps >= 1, "at least 1"),
            ("optimizer.lr", self.lr, self.lr >= 0, "at least 0"),
            ("optimizer.glr", self.glr, self.glr >= 0, "at least 0"),
            ("optimizer.beta2", self.beta2, 0 <= self.beta2 < 1, "in [0, 1)"),
            ("optimizer.eps", self.eps, self.eps > 0, "positive"),
            ("optimizer.clip_value", self.clip_value, self.clip_value is None or self.clip_value > 0, "positive"),
            ("ema.half_life", self.half_life, self.half_life >= 0, "at least 0"),
            ("ema.ramp_up", self.ramp_up, self.ramp_up is None or self.ramp_up >= 0, "at least 0"),
        )
        for key, value, holds, wanted in requirements:
            if not holds:
                raise ValueError(f"{key}: {value} is not {wanted}")
        if self.batch % self.accumulation:
            raise ValueError(f"batch: {self.batch} is not a multiple of accumulation, {self.accumulation}")

    def phase(self, step: int) -> Phase:
        """What iteration `step`, counted from 0, does (section 6)."""
        seen = step * self.batch
        if seen < self.gan.freeze:
            return Phase(generator=False, adversarial=False)
        return Phase(generator=True, adversarial=self.gan.lambda_g > 0 and seen >= self.gan.start)

    @property
    def last_phase(self) -> Phase:
        """The phase that a run ends in, and the one that costs most."""
        return Phase(generator=True, adversarial=self.gan.lambda_g > 0)

    @property
    def frozen_steps(self) -> int:
        """Iterations before the generator is trained."""
        return -(-self.gan.freeze // self.batch)
