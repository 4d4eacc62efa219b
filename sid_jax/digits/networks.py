"""The networks of the small pipeline, by their diffusers and transformers configurations."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from flax import nnx
from transformers import CLIPTokenizer

from sid_jax.models.layers.constant import Constant
from sid_jax.models.registry import NETWORK_TYPES
from sid_jax.sid import key_of
from sid_jax.teachers import Component, build

_VERSION = "0.42.1"  # of diffusers, whose fields these are


def autoencoder(channels: Sequence[int], latent_channels: int, resolution: int) -> Component:
    """An AutoencoderKL with one residual block a level; its scaling factor is 1."""
    fields = {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": _VERSION,
        "act_fn": "silu",
        "block_out_channels": list(channels),
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "force_upcast": False,
        "in_channels": 3,
        "latent_channels": latent_channels,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "out_channels": 3,
        "sample_size": resolution,
        "scaling_factor": 1.0,
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
    }
    return build("AutoencoderKL", fields)


def unet(
    channels: Sequence[int],
    heads: int,
    latent_channels: int,
    sample_size: int,
    text_width: int,
    *,
    attention: bool = True,
) -> Component:
    """A UNet2DConditionModel with one residual block a level, and one transformer block; without `attention` the only
    transformer block is that between the way down and the way up."""
    kind = "CrossAttn{}Block2D" if attention else "{}Block2D"
    fields = {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": _VERSION,
        "act_fn": "silu",
        "attention_head_dim": heads,
        "block_out_channels": list(channels),
        "cross_attention_dim": text_width,
        "down_block_types": [kind.format("Down")] * len(channels),
        "in_channels": latent_channels,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "out_channels": latent_channels,
        "sample_size": sample_size,
        "up_block_types": [kind.format("Up")] * len(channels),
    }
    return build("UNet2DConditionModel", fields)


def text_encoder(tokenizer: CLIPTokenizer, width: int, layers: int) -> Component:
    """A CLIPTextModel for the tokenizer's words and length."""
    fields = {
        "architectures": ["CLIPTextModel"],
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "hidden_act": "quick_gelu",
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "max_position_embeddings": tokenizer.model_max_length,
        "model_type": "clip_text_model",
        "num_attention_heads": 4,
        "num_hidden_layers": layers,
        "pad_token_id": tokenizer.pad_token_id,
        "projection_dim": width,
        "vocab_size": len(tokenizer),
    }
    return build("CLIPTextModel", fields)


def initial(component: Component, seed: int) -> Any:
    """Initial parameters of a network that was built."""
    return initialised(component, seed).params


def initialised(component: Component, seed: int) -> Component:
    """A network that was built, with initial parameters, made each by itself: one program takes longer to compile."""
    module = NETWORK_TYPES[component.class_name].module(component.config, rngs=nnx.Rngs(key_of(seed)))
    _, *states = nnx.split(module, nnx.Not(Constant), Constant)
    params, constants = states
    return dataclasses.replace(component, params=params, constants=constants)


SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.42.1",
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
