"""The two losses of an iteration (section 5; SiD, arXiv 2404.04057; SiD-LSG, arXiv 2406.01561).

Both take every random draw as an argument, and return the loss of each sample, summed over pixels and channels: its
mean over the whole batch is what is minimised. A sample with a non-finite image or prediction is left out: its loss is
zero, its gradient is zero, and it still counts in the divisor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp

from sid_jax.sid.barrier import barrier
from sid_jax.sid.gan import Judged
from sid_jax.sid.guidance import Condition, Denoiser, Discriminator, Guidance, guided, guided_with_logits
from sid_jax.sid.process import Draw, Process, each

WEIGHTINGS = {
    "snr": lambda a, s: a**2 / s**2,
    "snr_sqrt": lambda a, s: a / s,
    "1_over_sigma": lambda a, s: 1 / s,
    "1_over_sigma2": lambda a, s: 1 / s**2,
    "1_minus_sigma": lambda a, s: 1 - s,
    "1_minus_sigma_squared": lambda a, s: (1 - s) ** 2,
}
"""w(t) by name, as functions of a = scale(t) and s = sigma(t); "sid" depends on the images instead."""


@dataclass(frozen=True)
class Loss:
    """The numbers of the generator's loss.

    Attributes:
      alpha: see `sid_loss`.
      weighting: the name of w, see `weights`.
      loss_scale: its factor, lambda_sid.

    Raises:
      ValueError: there is no such weighting.
    """

    alpha: float = 1.0
    weighting: str = "sid"
    loss_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.weighting not in ("sid", *WEIGHTINGS):
            raise ValueError(f"sid.weighting: {self.weighting!r} is not one of sid, {', '.join(WEIGHTINGS)}")


class Gaps(NamedTuple):
    """How far images of a sample are from each other: the mean over its pixels of the absolute difference, `[B]`.

    No loss has them: L_sid has either sign, and these say whether it comes to rest.
    """

    teacher_fake: jax.Array
    """|y_real - y_fake2|: 0 where the fake network has become what the teacher is."""
    generator_teacher: jax.Array
    """|x_g - y_real|: 0 where the teacher leaves the generated images as they are."""


class Losses(NamedTuple):
    """Of each sample: its loss `[B]`, whether it is part of the loss, `[B]` bool, and its weight in it,
    `[B, 1, 1, 1]`.

    With the GAN term also the raw logits of D at the corrupted generated images, `[B, ...]`; in update B also the gaps.
    """

    loss: jax.Array
    kept: jax.Array
    w: jax.Array
    logits: jax.Array | None = None
    gaps: Gaps | None = None

    @property
    def sums_of_gaps(self) -> dict[str, jax.Array]:
        """Each gap, summed over the samples, by the name of its metric; a sample that is left out has none."""
        return {f"{name}_gap": jnp.sum(gap) for name, gap in self.gaps._asdict().items()} if self.gaps else {}

    @property
    def judged(self) -> Judged:
        """What D says of the generated images; only with the GAN term."""
        if self.logits is None:
            raise ValueError("there is no discriminator")
        return Judged(self.logits, self.kept)


def fake_loss(
    fake: Denoiser | Discriminator,
    process: Process,
    x_g: jax.Array,
    draw: Draw,
    condition: Condition,
    kappa1: float,
) -> Losses:
    """Update A: the denoising loss of f_psi on the generator's images, under kappa1.

    Args:
      fake: f_psi; where the condition says that there is a discriminator, it returns its logits too.
      process: the forward process, which says what the target and the weight are (section 2).
      x_g: generated images `[B, H, W, C]`.
      draw: time and noise of each sample.
      condition: of each sample, and of the empty prompt.
      kappa1: guidance scale.
    """
    kept = _finite(x_g)
    x_g = _where(kept, x_g)
    x_t = process.corrupt(x_g, *draw)
    (output,), logits = _of_fake(fake, x_t, draw.t, condition, (kappa1,))
    kept &= _finite(output)
    error = jnp.square(_where(kept, output) - process.fake_target(x_g, *draw))
    w = each(process.fake_weight(draw.t))
    return Losses(_sum_pixels(_where(kept, w * error)), kept, w, logits)


def generator_loss(
    teacher: Denoiser,
    fake: Denoiser | Discriminator,
    process: Process,
    x_g: jax.Array,
    draw: Draw,
    condition: Condition,
    guidance: Guidance,
    numbers: Loss,
) -> Losses:
    """Update B: L_sid of the images x_g, as a function of which it is to be differentiated.

    y_real = f_phi(x_t) under kappa4; y_fake = f_psi(x_t) under kappa2 and kappa3, from one forward pass. The gradient
    flows through x_g itself and through x_t into the inputs of both networks.

    Args:
      teacher, fake: f_phi and f_psi; where the condition says that there is a discriminator, f_psi returns its logits
        too.
      process: the forward process.
      x_g: generated images `[B, H, W, C]`.
      draw: time and noise of each sample.
      condition: of each sample, and of the empty prompt.
      guidance: kappa2, kappa3 and kappa4 are read.
      numbers: alpha and the weighting are read.
    """
    t = draw.t
    kept = _finite(x_g)
    x_g = _where(kept, x_g)
    x_t = process.corrupt(x_g, *draw)
    (y_real,) = guided(teacher, x_t, t, condition, (guidance.kappa4,))
    # One network after the other, forwards and backwards, so that what they hold in between is not there at once.
    x_t, y_real = barrier((x_t, y_real))
    (y_fake2, y_fake3), logits = _of_fake(fake, x_t, t, condition, (guidance.kappa2, guidance.kappa3))
    outputs = y_real, y_fake2
    y_real, y_fake2, y_fake3 = (process.to_x0(x_t, t, output) for output in (y_real, y_fake2, y_fake3))

    kept &= _finite(y_real) & _finite(y_fake2) & _finite(y_fake3)
    gaps = _gaps(process, kept, x_g, x_t, t, outputs)
    x_g, y_real, y_fake2, y_fake3 = (_where(kept, value) for value in (x_g, y_real, y_fake2, y_fake3))
    w = weights(numbers.weighting, process, x_g, y_real, t)
    return Losses(_where(kept, sid_loss(x_g, y_real, y_fake2, y_fake3, w, numbers.alpha)), kept, w, logits, gaps)


def sid_loss(
    x_g: jax.Array,
    y_real: jax.Array,
    y_fake2: jax.Array,
    y_fake3: jax.Array,
    w: jax.Array | float,
    alpha: float = 1.0,
) -> jax.Array:
    """L_sid = sum_pixels w (y_real - y_fake) ((y_real - x_g) - alpha (y_real - y_fake)), `[B]`.

    SiD, arXiv 2404.04057, section 4; the guided form, where the two y_fake may differ (kappa2 in the
    first factor, kappa3 in the second), is SiD-LSG's, arXiv 2406.01561. Images `[B, H, W, C]`, w `[B, 1, 1, 1]`.
    At alpha = 1 the second factor is y_fake - x_g.
    """
    return _sum_pixels(w * (y_real - y_fake2) * ((y_real - x_g) - alpha * (y_real - y_fake3)))


def weights(name: str, process: Process, x_g: jax.Array, y_real: jax.Array, t: jax.Array) -> jax.Array:
    """w, one for each sample, `[B, 1, 1, 1]`, without a gradient.

    "sid": 1 / max(mean_pixels |x_g - y_real|, 1e-5); any other is w(t) of `WEIGHTINGS`.
    """
    if name == "sid":
        distance = jnp.mean(jnp.abs(x_g - y_real), axis=(1, 2, 3), keepdims=True)
        return jax.lax.stop_gradient(1 / jnp.maximum(distance, 1e-5))
    return each(WEIGHTINGS[name](process.scale(t), process.sigma(t)))


def _of_fake(
    fake: Denoiser | Discriminator, x_t: jax.Array, t: jax.Array, condition: Condition, scales: Sequence[float]
) -> tuple[list[jax.Array], jax.Array | None]:
    """The guided outputs of f_psi and, where there is a discriminator, its logits from the same evaluation."""
    if condition.discriminator is None:
        return guided(cast(Denoiser, fake), x_t, t, condition, scales), None
    return guided_with_logits(cast(Discriminator, fake), x_t, t, condition, scales)


def _finite(images: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(images), axis=(1, 2, 3))


def _where(kept: jax.Array, values: jax.Array) -> jax.Array:
    """Zero where a sample is left out: before the arithmetic, so that its gradient is zero and not NaN."""
    return jnp.where(kept.reshape(-1, *[1] * (values.ndim - 1)), values, 0)


def _gaps(
    process: Process,
    kept: jax.Array,
    x_g: jax.Array,
    x_t: jax.Array,
    t: jax.Array,
    outputs: tuple[jax.Array, jax.Array],
) -> Gaps:
    """The gaps between x_g, y_real and y_fake2, which are made here once more of the networks' outputs.

    A second use of those that L_sid is made of would change how XLA fuses it and its gradient, and so how they round.
    Behind a barrier these are others.
    """
    kept, x_g, x_t, outputs = barrier(jax.lax.stop_gradient((kept, x_g, x_t, outputs)))
    y_real, y_fake = (process.to_x0(x_t, t, output) for output in outputs)
    x_g, y_real, y_fake = (_where(kept, value) for value in (x_g, y_real, y_fake))
    return Gaps(_mean_distance(y_real, y_fake), _mean_distance(x_g, y_real))


def _mean_distance(one: jax.Array, other: jax.Array) -> jax.Array:
    return jnp.mean(jnp.abs(one - other), axis=(1, 2, 3))


def _sum_pixels(values: jax.Array) -> jax.Array:
    return jnp.sum(values, axis=(1, 2, 3))
