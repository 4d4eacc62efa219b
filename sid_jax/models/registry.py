"""Classes of networks by the names that diffusers and transformers have for them."""

from typing import NamedTuple

from flax import nnx

from sid_jax import models


class Network(NamedTuple):
    """A class of network: ours, its configuration, and how diffusers or transformers call its weights' file."""

    module: type[nnx.Module]
    config: type
    stem: str


NETWORKS = {
    "UNet2DConditionModel": Network(models.UNet2DConditionModel, models.UNetConfig, "diffusion_pytorch_model"),
    "AutoencoderKL": Network(models.AutoencoderKL, models.AutoencoderKLConfig, "diffusion_pytorch_model"),
    "CLIPTextModel": Network(models.CLIPTextModel, models.CLIPTextConfig, "model"),
    "CLIPTextModelWithProjection": Network(models.CLIPTextModelWithProjection, models.CLIPTextConfig, "model"),
}
