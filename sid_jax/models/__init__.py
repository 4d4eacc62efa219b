"""Networks as Flax NNX modules, named as diffusers and transformers name theirs."""

from sid_jax.models.clip import CLIPTextModel, CLIPTextModelWithProjection, CLIPTextOutput
from sid_jax.models.config import AutoencoderKLConfig, CLIPTextConfig, UNetConfig
from sid_jax.models.execution import ATTENTION, Execution
from sid_jax.models.unet import UNet2DConditionModel
from sid_jax.models.vae import AutoencoderKL

__all__ = [
    "ATTENTION",
    "AutoencoderKL",
    "AutoencoderKLConfig",
    "CLIPTextConfig",
    "CLIPTextModel",
    "CLIPTextModelWithProjection",
    "CLIPTextOutput",
    "Execution",
    "UNet2DConditionModel",
    "UNetConfig",
]
