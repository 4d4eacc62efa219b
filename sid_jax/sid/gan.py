"""The diffusion GAN (section 6; SiDA, arXiv 2410.14919; Few-Step SiD, arXiv 2505.12674), without one extra parameter.

The discriminator is the encoder of the fake network: D(x_t, t, c) is what the denoiser makes of its own features, one
logit for each of their positions (a UNet: the channel mean of its bottleneck). The pass that gives the fake network's
prediction gives the logits of generated images too; real images need the encoder alone.

Which condition D sees under guidance: the logits are those of the conditional pass. Where the fake network is trained
without text (kappa1 = 0, as in "zero_cfg", which removes the text from the fake network, arXiv 2505.12674) there is no
such pass, and D is unconditional in both updates. So the term never adds an evaluation on generated images.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sid_jax.sid.guidance import Discriminator
from sid_jax.sid.process import Draw, Process, each

LARGEST_LOGIT = 10.0


class Judged(NamedTuple):
    """What D says of images: raw logits `[B, ...]` in float32, and which of the images count, `[B]` bool."""

    logits: jax.Array
    kept: jax.Array

    def mean(self, batch: int) -> jax.Array:
        """The mean of D over `batch` images, of which those that don't count are 0."""
        values = clip_logits(self.logits)
        return jnp.sum(jnp.mean(values, axis=_all_but_first(values)), where=self.kept) / batch


@dataclass(frozen=True)
class Gan:
    """Weights and schedule of the GAN term; the defaults leave it out. Images are those that were generated so far.

    Attributes:
      lambda_d: weight of the discriminator's loss in update A. It is trained from the first image on.
      lambda_g: weight of the adversarial loss in update B.
      start: images before lambda_g counts, N.
      freeze: images before the generator is trained, M; update B is left out until then.

    Raises:
      ValueError: a negative number, or a generator that listens to a discriminator that is not trained.
    """

    lambda_d: float = 0.0
    lambda_g: float = 0.0
    start: int = 0
    freeze: int = 0

    def __post_init__(self) -> None:
        for name in ("lambda_d", "lambda_g", "start", "freeze"):
            if getattr(self, name) < 0:
                raise ValueError(f"gan.{name}: {getattr(self, name)} is not at least 0")
        if self.lambda_g and not self.lambda_d:
            raise ValueError(
                f"gan.lambda_d: it is 0 and gan.lambda_g {self.lambda_g}: nothing trains the discriminator"
            )

    @property
    def used(self) -> bool:
        """Whether there is a discriminator."""
        return self.lambda_d > 0

    def discriminator_factor(self, elements: int) -> float:
        """What the discriminator's loss counts in update A; `elements` is C H W of an image or latent."""
        return self.lambda_d * elements

    def generator_factors(self, loss_scale: float, elements: int) -> tuple[float, float]:
        """What L_sid and the adversarial loss count in update B, where both are there."""
        return loss_scale, self.lambda_g * elements

    def discriminator_loss(self, real: Judged, fake: Judged, weight: jax.Array) -> jax.Array:
        """[BCE(D(real_t), 1) + BCE(D(fake_t), 0)] / 2 of each sample, `[B]`; a term that is not kept is 0.

        weight: that of the fake network's own error at each sample's time, `[B]`, which this form leaves out.
        """
        del weight
        return (_kept_entropy(real, 1) + _kept_entropy(fake, 0)) / 2

    def adversarial_loss(self, fake: Judged, w: jax.Array) -> jax.Array:
        """w BCE(D(x_t), 1) of each sample, `[B]`, with the weights w `[B, 1, 1, 1]` of the generator's loss."""
        return w[:, 0, 0, 0] * _kept_entropy(fake, 1)


def clip_logits(logits: jax.Array) -> jax.Array:
    """Logits in [-10, 10]."""
    return jnp.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT)


def cross_entropy(logits: jax.Array, label: int) -> jax.Array:
    """BCE(D, label) of logits `[B, ...]`, label 0 or 1, averaged over all axes but the first: `[B]`."""
    return jnp.mean(jax.nn.softplus(-logits if label else logits), axis=_all_but_first(logits))


def judge_real(fake: Discriminator, process: Process, x: jax.Array, draw: Draw, cond: Any) -> Judged:
    """D of corrupted real images.

    Args:
      fake: f_psi, which returns (output, logits); its output is not used, and so not computed.
      process: the forward process.
      x: real images `[B, H, W, C]`.
      draw: that of the generated images.
      cond: what D sees of each sample's caption.

    Returns:
      The logits; an image counts if it and its logits are finite.
    """
    kept = jnp.all(jnp.isfinite(x), axis=(1, 2, 3))
    x_t = process.corrupt(jnp.where(each(kept), x, 0), *draw)
    _, logits = fake(x_t, draw.t, cond)
    logits = logits.astype(jnp.float32)
    return Judged(logits, kept & jnp.all(jnp.isfinite(clip_logits(logits)), axis=_all_but_first(logits)))


def _kept_entropy(judged: Judged, label: int) -> jax.Array:
    # Zero before the arithmetic where a sample is left out, so that its gradient is zero and not NaN.
    kept = judged.kept.reshape(-1, *[1] * (judged.logits.ndim - 1))
    return jnp.where(judged.kept, cross_entropy(jnp.where(kept, clip_logits(judged.logits), 0), label), 0)


def _all_but_first(array: jax.Array) -> tuple[int, ...]:
    return tuple(range(1, array.ndim))
