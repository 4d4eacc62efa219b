"""Types of networks, by the names of their classes in diffusers, transformers and EDM's published code."""

from collections.abc import Callable
from typing import NamedTuple

from flax import nnx

from sid_jax import models
from sid_jax.models import edm
from sid_jax.models.json_config import JsonConfig


class NetworkType(NamedTuple):
    """A type of network.

    Attributes:
      module: makes the network: `module(config, *, rngs, ...)`.
      config: the class of its configuration.
      stem: what the files with its weights are called, before the suffix.
    """

    module: Callable[..., nnx.Module]
    config: type[JsonConfig]
    stem: str


_DIFFUSERS, _TRANSFORMERS = "diffusion_pytorch_model", "model"

NETWORK_TYPES = {
    "UNet2DConditionModel": NetworkType(models.UNet2DConditionModel, models.UNetConfig, _DIFFUSERS),
    "AutoencoderKL": NetworkType(models.AutoencoderKL, models.AutoencoderKLConfig, _DIFFUSERS),
    "CLIPTextModel": NetworkType(models.CLIPTextModel, models.CLIPTextConfig, _TRANSFORMERS),
    "CLIPTextModelWithProjection": NetworkType(
        models.CLIPTextModelWithProjection, models.CLIPTextConfig, _TRANSFORMERS
    ),
    "CLIPModel": NetworkType(models.CLIPModel, models.CLIPConfig, _TRANSFORMERS),
    "Dinov2Model": NetworkType(models.Dinov2Model, models.Dinov2Config, _TRANSFORMERS),
    "EDMPrecond": NetworkType(edm.EDMPrecond, edm.EDMPrecondConfig, "model"),
    "VPPrecond": NetworkType(edm.VPPrecond, edm.VPPrecondConfig, "model"),
    "VEPrecond": NetworkType(edm.VEPrecond, edm.VEPrecondConfig, "model"),
    "iDDPMPrecond": NetworkType(edm.iDDPMPrecond, edm.IDDPMPrecondConfig, "model"),
}
