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
GAN_FORMS = ("map", "sida")


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
    """Weights, schedule and form of the GAN term; the defaults leave it out. Images are those generated so far.

    Two forms are published. They differ in what is averaged, weighted and cut off, and in when a phase ends:

    | | "map" (Few-Step SiD) | "sida" (SiDA) |
    |---|---|---|
    | a cross entropy is the mean over | the map of a sample | the maps of a group of samples |
    | logits, where D learns | in [-10, 10] | as they are |
    | the discriminator's loss counts | lambda_d C H W | lambda_d, and fake_weight(t) of each sample |
    | L_sid and the adversarial loss count | both in full | half each |
    | condition of the generator's images in A | one of its own | that of the real image |
    | a number of images is over | once as many were generated | once more were generated |

    Attributes:
      lambda_d: weight of the discriminator's loss in update A. It is trained from the first image on.
      lambda_g: weight of the adversarial loss in update B.
      start: images before lambda_g counts, N.
      freeze: images before the generator is trained, M; update B is left out until then.
      form: "map" or "sida".
      group: samples of a group, which must divide a micro-batch; None: all of a micro-batch. Only of "sida".

    Raises:
      ValueError: a negative number, an unknown form, or a generator that listens to an untrained discriminator.
    """

    lambda_d: float = 0.0
    lambda_g: float = 0.0
    start: int = 0
    freeze: int = 0
    form: str = "map"
    group: int | None = None

    def __post_init__(self) -> None:
        for name in ("lambda_d", "lambda_g", "start", "freeze"):
            if getattr(self, name) < 0:
                raise ValueError(f"gan.{name}: {getattr(self, name)} is not at least 0")
        if self.lambda_g and not self.lambda_d:
            raise ValueError(
                f"gan.lambda_d: it is 0 and gan.lambda_g {self.lambda_g}: nothing trains the discriminator"
            )
        if self.form not in GAN_FORMS:
            raise ValueError(f"gan.form: {self.form!r} is not one of {', '.join(GAN_FORMS)}")
        if self.group is not None and self.group < 1:
            raise ValueError(f"gan.group: {self.group} is not at least 1")

    @property
    def used(self) -> bool:
        """Whether there is a discriminator."""
        return self.lambda_d > 0

    @property
    def of_real_conditions(self) -> bool:
        """Whether the generator's images of update A are of the conditions of the real images."""
        return self.used and self.form == "sida"

    def check_group(self, micro_batch: int) -> None:
        """Raises ValueError if a micro-batch of so many samples can't be divided into groups."""
        if self.group and micro_batch % self.group:
            raise ValueError(f"gan.group: {self.group} does not divide the {micro_batch} samples of a micro-batch")

    def is_over(self, images: int, seen: int) -> bool:
        """Whether `seen` images, those before an iteration, are past `start` or `freeze`; 0 is over from the first."""
        return seen >= images if self.form == "map" else seen > images or not images

    def frozen_steps(self, batch: int) -> int:
        """Iterations before the generator is trained."""
        steps = -(-self.freeze // batch)
        return steps if self.is_over(self.freeze, steps * batch) else steps + 1

    def discriminator_factor(self, elements: int) -> float:
        """What the discriminator's loss counts in update A; `elements` is C H W of an image or latent."""
        return self.lambda_d * elements if self.form == "map" else self.lambda_d

    def generator_factors(self, loss_scale: float, elements: int) -> tuple[float, float]:
        """What L_sid and the adversarial loss count in update B, where both are there."""
        share = 1.0 if self.form == "map" else 0.5
        return share * loss_scale, share * self.lambda_g * elements

    def discriminator_loss(self, real: Judged, fake: Judged, weight: jax.Array) -> jax.Array:
        """[BCE(D(real_t), 1) + BCE(D(fake_t), 0)] / 2 of each sample, `[B]`; a term that is not kept is 0.

        In the form of SiDA it is a group's, times the weight, and a sample counts only if both its images are kept.

        weight: that of the fake network's own error at each sample's time, `[B]`.
        """
        if self.form == "map":
            return (_kept_entropy(real, 1) + _kept_entropy(fake, 0)) / 2
        kept = real.kept & fake.kept & _finite(real.logits) & _finite(fake.logits)
        values = self._of_groups(real.logits, kept, 1) + self._of_groups(fake.logits, kept, 0)
        return jnp.where(kept, weight * values / 2, 0)

    def discriminator_entropy(self, values: jax.Array, weight: jax.Array, batch: int) -> jax.Array:
        """The mean over `batch` samples of what `discriminator_loss` has returned, without the weight."""
        return jnp.sum(values if self.form == "map" else values / weight) / batch

    def adversarial_loss(self, fake: Judged, w: jax.Array) -> jax.Array:
        """w BCE(D(x_t), 1) of each sample, `[B]`, with the weights w `[B, 1, 1, 1]` of the generator's loss."""
        if self.form == "map":
            return w[:, 0, 0, 0] * _kept_entropy(fake, 1)
        logits = clip_logits(fake.logits)
        kept = fake.kept & _finite(logits)
        return jnp.where(kept, w[:, 0, 0, 0] * self._of_groups(logits, kept, 1), 0)

    def _of_groups(self, logits: jax.Array, kept: jax.Array, label: int) -> jax.Array:
        """BCE(D, label), averaged over the samples of a group that are kept, for each sample of it: `[B]`."""
        values = jnp.where(kept, cross_entropy(jnp.where(_each(kept, logits), logits, 0), label), 0)
        size = self.group or len(values)
        sums, counts = (jnp.sum(x.reshape(-1, size), axis=1) for x in (values, kept.astype(jnp.float32)))
        return jnp.repeat(sums / jnp.maximum(counts, 1), size)


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
    return Judged(logits, kept & _finite(clip_logits(logits)))


def _kept_entropy(judged: Judged, label: int) -> jax.Array:
    # Zero before the arithmetic where a sample is left out, so that its gradient is zero and not NaN.
    kept = _each(judged.kept, judged.logits)
    return jnp.where(judged.kept, cross_entropy(jnp.where(kept, clip_logits(judged.logits), 0), label), 0)


def _all_but_first(array: jax.Array) -> tuple[int, ...]:
    return tuple(range(1, array.ndim))


def _each(kept: jax.Array, logits: jax.Array) -> jax.Array:
    """`[B]` with the axes of the logits."""
    return kept.reshape(-1, *[1] * (logits.ndim - 1))


def _finite(logits: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(logits), axis=_all_but_first(logits))
