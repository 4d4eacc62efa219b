"""The two losses of an iteration (section 5; SiD, arXiv 2404.04057; SiD-LSG, arXiv 2406.01561).

Both take every random draw as an argument, and return the loss of each sample, summed over pixels and channels: its
mean over the whole batch is what is minimised. A sample with a non-finite image or prediction is left out: its loss is
zero, its gradient is zero, and it still counts in the divisor.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sid_jax.sid import gan
from sid_jax.sid.guidance import Guidance, Network, NetworkWithBottleneck, guided, guided_with_bottleneck
from sid_jax.sid.process import ForwardProcess

WEIGHTINGS = {
    "snr": lambda a, s: a**2 / s**2,
    "snr_sqrt": lambda a, s: a / s,
    "1_over_sigma": lambda a, s: 1 / s,
    "1_over_sigma2": lambda a, s: 1 / s**2,
    "1_minus_sigma": lambda a, s: 1 - s,
    "1_minus_sigma_squared": lambda a, s: (1 - s) ** 2,
}
"""w(t) by name, as functions of a = scale(t) and s = sigma(t); "sid" depends on the images instead."""


class Losses(NamedTuple):
    """Of each sample: its loss `[B]`, and whether it is part of the loss, `[B]` bool.

    With the GAN term also D of the corrupted generated images, `[B, h, w]`, and of the generator's loss the weights w,
    `[B, 1, 1, 1]`.
    """

    loss: jax.Array
    kept: jax.Array
    logits: jax.Array | None = None
    w: jax.Array | None = None


def check_weighting(name: str) -> None:
    """Raises ValueError if there is no such weighting."""
    if name not in ("sid", *WEIGHTINGS):
        raise ValueError(f"sid.weighting: {name!r} is not one of sid, {', '.join(WEIGHTINGS)}")


def fake_loss(
    fake: Network | NetworkWithBottleneck,
    process: ForwardProcess,
    x_g: jax.Array,
    t: jax.Array,
    noise: jax.Array,
    cond: Any,
    empty: Any,
    kappa1: float,
    *,
    discriminator_text: bool | None = None,
) -> Losses:
    """Update A: the denoising loss of f_psi on the generator's images, under kappa1.

    Args:
      fake: f_psi. With the GAN term it returns its bottleneck too.
      process: the forward process, which says what the error is (section 2).
      x_g: generated images `[B, H, W, C]`.
      t, noise: `[B]` int32 and `[B, H, W, C]`.
      cond, empty: the condition of each sample, and of the empty prompt with a batch axis of 1.
      kappa1: guidance scale.
      discriminator_text: whether D reads the text (see `gan`); None without the GAN term.
    """
    kept = _finite(x_g)
    x_g = _where(kept, x_g)
    x_t = process.corrupt(x_g, t, noise)
    (output,), logits = _of_fake(fake, x_t, t, cond, empty, kappa1, text=discriminator_text)
    kept &= _finite(output)
    error = process.fake_error(_where(kept, output), x_g, t, noise)
    return Losses(_sum_pixels(_where(kept, error)), kept, logits)


def generator_loss(
    teacher: Network,
    fake: Network | NetworkWithBottleneck,
    process: ForwardProcess,
    x_g: jax.Array,
    t: jax.Array,
    noise: jax.Array,
    cond: Any,
    empty: Any,
    guidance: Guidance,
    alpha: float = 1.0,
    weighting: str = "sid",
    *,
    discriminator_text: bool | None = None,
) -> Losses:
    """Update B: L_sid of the images x_g, as a function of which it is to be differentiated.

    y_real = f_phi(x_t) under kappa4; y_fake = f_psi(x_t) under kappa2 and kappa3, from one forward pass. The gradient
    flows through x_g itself and through x_t into the inputs of both networks.

    Args:
      teacher, fake: f_phi and f_psi. With the GAN term f_psi returns its bottleneck too.
      process: the forward process.
      x_g: generated images `[B, H, W, C]`.
      t, noise: `[B]` int32 and `[B, H, W, C]`.
      cond, empty: the condition of each sample, and of the empty prompt with a batch axis of 1.
      guidance: kappa2, kappa3 and kappa4 are read.
      alpha, weighting: see `sid_loss` and `weights`.
      discriminator_text: whether D reads the text (see `gan`); None without the GAN term.
    """
    kept = _finite(x_g)
    x_g = _where(kept, x_g)
    x_t = process.corrupt(x_g, t, noise)
    (y_real,) = guided(teacher, x_t, t, cond, empty, guidance.kappa4)
    # One network after the other, forwards and backwards, so that what they hold in between is not there at once.
    x_t, y_real = jax.lax.optimization_barrier((x_t, y_real))
    scales = (guidance.kappa2, guidance.kappa3)
    (y_fake2, y_fake3), logits = _of_fake(fake, x_t, t, cond, empty, *scales, text=discriminator_text)
    y_real, y_fake2, y_fake3 = (process.to_x0(x_t, t, output) for output in (y_real, y_fake2, y_fake3))

    kept &= _finite(y_real) & _finite(y_fake2) & _finite(y_fake3)
    x_g, y_real, y_fake2, y_fake3 = (_where(kept, value) for value in (x_g, y_real, y_fake2, y_fake3))
    w = weights(weighting, process, x_g, y_real, t)
    return Losses(_where(kept, sid_loss(x_g, y_real, y_fake2, y_fake3, w, alpha)), kept, logits, w)


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


def weights(name: str, process: ForwardProcess, x_g: jax.Array, y_real: jax.Array, t: jax.Array) -> jax.Array:
    """w, one for each sample, `[B, 1, 1, 1]`, without a gradient.

    "sid": 1 / max(mean_pixels |x_g - y_real|, 1e-5); any other is w(t) of `WEIGHTINGS`.
    """
    check_weighting(name)
    if name == "sid":
        distance = jnp.mean(jnp.abs(x_g - y_real), axis=(1, 2, 3), keepdims=True)
        return jax.lax.stop_gradient(1 / jnp.maximum(distance, 1e-5))
    return WEIGHTINGS[name](process.scale(t), process.sigma(t))[:, None, None, None]


def _of_fake(fake, x_t, t, cond, empty, *scales, text):
    """The guided outputs of f_psi and, where there is a discriminator, its logits from the same evaluation."""
    if text is None:
        return guided(fake, x_t, t, cond, empty, *scales), None
    outputs, bottleneck = guided_with_bottleneck(fake, x_t, t, cond, empty, *scales, text=text)
    return outputs, gan.logits(bottleneck)


def _finite(images: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(images), axis=(1, 2, 3))


def _where(kept: jax.Array, values: jax.Array) -> jax.Array:
    """Zero where a sample is left out: before the arithmetic, so that its gradient is zero and not NaN."""
    return jnp.where(kept.reshape(-1, *[1] * (values.ndim - 1)), values, 0)


def _sum_pixels(values: jax.Array) -> jax.Array:
    return jnp.sum(values, axis=(1, 2, 3))
