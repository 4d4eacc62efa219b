"""The four preconditioners: D(x; s) = c_skip(s) x + c_out(s) F(c_in(s) x; c_noise(s)), the denoised image.

They are `DenoiserModule`s, whose times are the noise levels s themselves, and whose raw output is D.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from sid_jax.models.edm.config import (
    STEPS,
    EDMPrecondConfig,
    IDDPMPrecondConfig,
    PrecondConfig,
    VEPrecondConfig,
    VPPrecondConfig,
    iddpm_levels,
)
from sid_jax.models.edm.dhariwal import DhariwalUNet
from sid_jax.models.edm.song import SongUNet
from sid_jax.models.layers.constant import known_constant
from sid_jax.models.layers.execution import Execution
from sid_jax.models.layers.options import LayerOptions


class Coefficients(NamedTuple):
    """c_skip, c_out, c_in and c_noise of noise levels, each `[B]`."""

    skip: jax.Array | float
    out: jax.Array | float
    into: jax.Array | float
    noise: jax.Array


class _Precond(nnx.Module):
    """What the preconditioners have in common.

    Args:
      config: the preconditioner's, with the network's in it.
      dtype: type that F computes in, but for its embeddings and softmax; None: that of the parameters and inputs.
      param_dtype: type that parameters are stored in.
      execution: how it is computed; None: by plain JAX on one device.
      rngs: for initial parameters.
    """

    _outputs = 1  # for each channel of the image

    def __init__(
        self,
        config: Any,
        *,
        dtype: jax.typing.DTypeLike | None = None,
        param_dtype: jax.typing.DTypeLike = jnp.float32,
        execution: Execution | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        layer: LayerOptions = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        network = SongUNet if config.model_type == "SongUNet" else DhariwalUNet
        self.config: PrecondConfig = config
        self.dtype = dtype
        self.model = network(config, self._outputs * config.img_channels, execution=execution, **layer)

    def coefficients(self, sigma: jax.Array) -> Coefficients:
        """What the preconditioner makes of noise levels `[B]`, float32."""
        raise NotImplementedError

    def round_sigma(self, sigma: jax.Array) -> jax.Array:
        """The nearest noise levels that the network knows: the same, where it knows all."""
        return sigma

    def __call__(self, x: jax.Array, t: jax.Array, *, dropout_key: jax.Array | None = None, **cond: Any) -> jax.Array:
        """The denoised image: the first of what `with_features` returns for the same arguments."""
        return self.with_features(x, t, dropout_key=dropout_key, **cond)[0]

    def features(self, x: jax.Array, t: jax.Array, *, dropout_key: jax.Array | None = None, **cond: Any) -> jax.Array:
        """The encoder's output: the second of what `with_features` returns for the same arguments."""
        return self.with_features(x, t, dropout_key=dropout_key, **cond)[1]

    def with_features(
        self,
        x: jax.Array,
        t: jax.Array,
        *,
        class_labels: jax.Array | None = None,
        augment_labels: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """The denoised image, and the output of the encoder's last entry.

        A program that leaves the image unused pays for the encoder only: XLA takes the decoder out.

        Args:
          x: noisy images `[B, R, R, img_channels]`.
          t: their noise levels `[B]`.
          class_labels: int32 `[B]`, -1 for none; None: none. A network without classes does not look at them.
          augment_labels: `[B, augment_dim]`; None: the images are not augmented.
          dropout_key: None: no dropout.

        Returns:
          The image `[B, R, R, img_channels]` in float32, and the features `[B, r, r, C]`, at the lowest resolution, in
          the computation's type.

        Raises:
          ValueError: the images are of another shape than the configuration says; or there are labels of an
            augmentation, and the network is not conditioned on one.
        """
        side, channels = self.config.img_resolution, self.config.img_channels
        if x.shape[1:] != (side, side, channels):
            raise ValueError(f"images of shape {x.shape[1:]}; the network is for {(side, side, channels)}")
        if augment_labels is not None and not self.config.network.augment_dim:
            raise ValueError("the network is not conditioned on an augmentation (augment_dim is 0): no augment_labels")
        x, sigma = jnp.asarray(x, jnp.float32), jnp.asarray(t, jnp.float32)
        c = self.coefficients(sigma)
        embedding = self.model.embed(c.noise, class_labels, augment_labels)
        inputs = (_per_image(c.into) * x).astype(self.dtype or jnp.float32)
        skips = self.model.encode(inputs, embedding, dropout_key)
        output = self.model.finish(self.model.decode(skips, embedding, dropout_key))
        output = output[..., :channels].astype(jnp.float32)
        return _per_image(c.skip) * x + _per_image(c.out) * output, skips[-1]

    def logits(self, features: jax.Array) -> jax.Array:
        """The channel mean of features `[B, r, r, C]`: float32 `[B, r, r]`, not clipped."""
        return jnp.mean(features.astype(jnp.float32), axis=-1)


def _per_image(coefficient: jax.Array | float) -> jax.Array | float:
    return coefficient[:, None, None, None] if isinstance(coefficient, jax.Array) else coefficient


class EDMPrecond(_Precond):
    """EDM's own (Karras et al. 2022): input, output and target have unit variance at every noise level."""

    config: EDMPrecondConfig

    def coefficients(self, sigma: jax.Array) -> Coefficients:
        """What the preconditioner makes of noise levels `[B]`, float32."""
        data = self.config.sigma_data
        total = sigma**2 + data**2
        return Coefficients(data**2 / total, sigma * data / jnp.sqrt(total), 1 / jnp.sqrt(total), jnp.log(sigma) / 4)


class VPPrecond(_Precond):
    """Of networks that predict the noise of a variance-preserving process, with a linear schedule."""

    config: VPPrecondConfig

    def coefficients(self, sigma: jax.Array) -> Coefficients:
        """What the preconditioner makes of noise levels `[B]`, float32."""
        slope, start = self.config.beta_d, self.config.beta_min
        time = (jnp.sqrt(start**2 + 2 * slope * jnp.log(1 + sigma**2)) - start) / slope
        return Coefficients(1.0, -sigma, 1 / jnp.sqrt(sigma**2 + 1), (STEPS - 1) * time)


class VEPrecond(_Precond):
    """Of networks that predict the noise of a variance-exploding process."""

    config: VEPrecondConfig

    def coefficients(self, sigma: jax.Array) -> Coefficients:
        """What the preconditioner makes of noise levels `[B]`, float32."""
        return Coefficients(1.0, sigma, 1.0, jnp.log(sigma / 2))


class iDDPMPrecond(_Precond):
    """Of networks that predict noise at 1,000 discrete levels, and its variance, which nothing here reads."""

    config: IDDPMPrecondConfig
    _outputs = 2

    def __init__(self, config: IDDPMPrecondConfig, **options: Any) -> None:
        super().__init__(config, **options)
        # The published code computes each level from the one before, in float32: its smallest are off by 5e-4.
        self.u = known_constant(iddpm_levels(), tolerance=5e-3)

    def _nearest(self, sigma: jax.Array) -> jax.Array:
        return jnp.argmin(jnp.abs(sigma[:, None] - self.u[...]), axis=1)

    def round_sigma(self, sigma: jax.Array) -> jax.Array:
        """The nearest of the discrete noise levels, for each of `[B]`."""
        return self.u[...][self._nearest(sigma)]

    def coefficients(self, sigma: jax.Array) -> Coefficients:
        """What the preconditioner makes of noise levels `[B]`, float32."""
        index = self._nearest(sigma)
        return Coefficients(1.0, -sigma, 1 / jnp.sqrt(sigma**2 + 1), (STEPS - 1 - index).astype(jnp.float32))
