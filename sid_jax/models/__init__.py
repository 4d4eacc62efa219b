"""Networks as Flax NNX modules, named as diffusers, transformers and EDM's code name theirs."""

from sid_jax.models.clip import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTextOutput
from sid_jax.models.clip_vision import CLIPConfig, CLIPModel, CLIPVisionConfig
from sid_jax.models.denoiser import DenoiserModule
from sid_jax.models.dinov2 import Dinov2Config, Dinov2Model
from sid_jax.models.json_config import JsonConfig
from sid_jax.models.layers.constant import Constant
from sid_jax.models.layers.execution import ATTENTION, REMAT, Execution
from sid_jax.models.unet import UNet2DConditionModel, UNetConfig
from sid_jax.models.vae import AutoencoderKL, AutoencoderKLConfig

__all__ = [
    "ATTENTION",
    "REMAT",
    "AutoencoderKL",
    "AutoencoderKLConfig",
    "CLIPConfig",
    "CLIPModel",
    "CLIPTextConfig",
    "CLIPTextModel",
    "CLIPTextModelWithProjection",
    "CLIPTextOutput",
    "CLIPVisionConfig",
    "Constant",
    "DenoiserModule",
    "Dinov2Config",
    "Dinov2Model",
    "Execution",
    "JsonConfig",
    "UNet2DConditionModel",
    "UNetConfig",
]
