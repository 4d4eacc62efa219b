"""The UNet of Stable Diffusion."""

from sid_jax.models.unet.config import UNetConfig
from sid_jax.models.unet.network import UNet2DConditionModel

__all__ = ["UNet2DConditionModel", "UNetConfig"]
