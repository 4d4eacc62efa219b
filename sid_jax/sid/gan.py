"""The diffusion GAN (section 6; SiDA, arXiv 2410.14919; Few-Step SiD, arXiv 2505.12674), without one extra parameter.

The discriminator is the encoder of the fake network: D(x_t, t, c) is the channel mean of its bottleneck features, a
logit for each position of the lowest resolution. The pass that gives the fake network's prediction gives the logits of
generated images too; real images need the encoder alone.

Which text D sees under guidance: the logits are those of the conditional pass. Where the fake network is trained
without text (kappa1 = 0, as in "zero_cfg", which removes the text from the fake network, arXiv 2505.12674) there is no
such pass, and D is unconditional in both updates. So the term never adds an evaluation on generated images.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from sid_jax.sid.guidance import NetworkWithBottleneck
from sid_jax.sid.process import ForwardProcess

LARGEST_LOGIT = 10.0


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

    def __post_init__(self):
        for name in ("lambda_d", "lambda_g", "start", "freeze"):
            if getattr(self, name) < 0:
                raise ValueError(f"gan.{name}: {getattr(self, name)} is not at least 0")
        if self.lambda_g and not self.lambda_d:
            raise ValueError(
                f"gan.lambda_d: it is 0 and gan.lambda_g {self.lambda_g}: nothing trains the discriminator"
            )


def logits(bottleneck: jax.Array) -> jax.Array:
    """D of bottleneck features `[B, h, w, C]`: their mean over C in [-10, 10], float32 `[B, h, w]`."""
    return jnp.clip(jnp.mean(bottleneck.astype(jnp.float32), axis=-1), -LARGEST_LOGIT, LARGEST_LOGIT)


def cross_entropy(logits: jax.Array, label: int) -> jax.Array:
    """BCE(D, label) of logits `[B, h, w]`, label 0 or 1, averaged over the map: `[B]`."""
    return jnp.mean(jax.nn.softplus(-logits if label else logits), axis=(1, 2))


def real_logits(
    fake: NetworkWithBottleneck, process: ForwardProcess, x: jax.Array, t: jax.Array, noise: jax.Array, cond: Any
) -> tuple[jax.Array, jax.Array]:
    """D of corrupted real images.

    Args:
      fake: f_psi, which returns (output, bottleneck); its output is not used, and so not computed.
      process: the forward process.
      x: real images `[B, H, W, C]`.
      t, noise: `[B]` int32 and `[B, H, W, C]`, those of the generated images.
      cond: what D sees of each sample's caption.

    Returns:
      (logits `[B, h, w]`, kept `[B]` bool: the image and its logits are finite).
    """
    kept = jnp.all(jnp.isfinite(x), axis=(1, 2, 3))
    x_t = process.corrupt(jnp.where(kept[:, None, None, None], x, 0), t, noise)
    _, bottleneck = fake(x_t, t, cond)
    of_real = logits(bottleneck)
    return of_real, kept & jnp.all(jnp.isfinite(of_real), axis=(1, 2))


def discriminator_loss(
    logits_real: jax.Array, kept_real: jax.Array, logits_fake: jax.Array, kept_fake: jax.Array
) -> jax.Array:
    """[BCE(D(real_t), 1) + BCE(D(fake_t), 0)] / 2 of each sample, `[B]`; a term that is not kept is 0."""
    return (_kept_entropy(logits_real, kept_real, 1) + _kept_entropy(logits_fake, kept_fake, 0)) / 2


def adversarial_loss(logits_fake: jax.Array, kept: jax.Array, w: jax.Array) -> jax.Array:
    """w BCE(D(x_t), 1) of each sample, `[B]`, with the weights w `[B, 1, 1, 1]` of the generator's loss."""
    return w[:, 0, 0, 0] * _kept_entropy(logits_fake, kept, 1)


def _kept_entropy(logits: jax.Array, kept: jax.Array, label: int) -> jax.Array:
    # Zero before the arithmetic where a sample is left out, so that its gradient is zero and not NaN.
    return jnp.where(kept, cross_entropy(jnp.where(kept[:, None, None], logits, 0), label), 0)
