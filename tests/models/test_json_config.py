"""Configurations: published ones are read, and every field that we do not implement is an error that names it."""

import copy
import dataclasses
import inspect

import diffusers
import pytest
import transformers
from diffusers.training_utils import EMAModel

from sid_jax.models import (
    AutoencoderKLConfig,
    CLIPConfig,
    CLIPTextConfig,
    CLIPVisionConfig,
    Dinov2Config,
    UNetConfig,
)

UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
UNET_SD21 = {
    **UNET,
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "dual_cross_attention": False,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "upcast_attention": True,
    "use_linear_projection": True,
}
UNET_SDXL = {
    **UNET_SD21,
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_dim": 2048,
    "cross_attention_norm": None,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "mid_block_only_cross_attention": None,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_attention_heads": None,
    "projection_class_embeddings_input_dim": 2816,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "sample_size": 128,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "upcast_attention": None,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "force_upcast": True,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
CLIP = {
    "_name_or_path": "openai/clip-vit-large-patch14",
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "torch_dtype": "float32",
    "transformers_version": "4.22.0.dev0",
    "vocab_size": 49408,
}
CLIP_VISION = {
    "attention_dropout": 0.0,
    "dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_size": 1408,
    "image_size": 224,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 6144,
    "layer_norm_eps": 1e-05,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 40,
    "patch_size": 14,
    "projection_dim": 1024,
}
CLIP_BOTH = {
    "initializer_factor": 1.0,
    "logit_scale_init_value": 2.6592,
    "model_type": "clip",
    "projection_dim": 1024,
    "text_config": {"hidden_act": "gelu", "hidden_size": 1024, "model_type": "clip_text_model"},
    "text_config_dict": None,
    "vision_config": CLIP_VISION,
    "vision_config_dict": None,
}
DINOV2 = {
    "apply_layernorm": True,
    "attention_probs_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 1024,
    "image_size": 518,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-06,
    "layerscale_value": 1.0,
    "mlp_ratio": 4,
    "model_type": "dinov2",
    "num_attention_heads": 16,
    "num_channels": 3,
    "num_hidden_layers": 24,
    "out_features": ["stage24"],
    "out_indices": [24],
    "patch_size": 14,
    "qkv_bias": True,
    "reshape_hidden_states": True,
    "stage_names": ["stem", "stage1"],
    "use_swiglu_ffn": False,
}
CLASSES = {
    UNetConfig: UNET,
    AutoencoderKLConfig: VAE,
    CLIPTextConfig: CLIP,
    CLIPVisionConfig: CLIP_VISION,
    CLIPConfig: CLIP_BOTH,
    Dinov2Config: DINOV2,
}


@pytest.mark.parametrize(
    ("config_class", "values"),
    [
        (UNetConfig, UNET),
        (UNetConfig, UNET_SD21),
        (UNetConfig, UNET_SDXL),
        (AutoencoderKLConfig, VAE),
        (CLIPTextConfig, CLIP),
        (CLIPVisionConfig, CLIP_VISION),
        (Dinov2Config, DINOV2),
    ],
)
def test_published_configs_are_read(config_class, values):
    config = config_class.from_dict(values)
    for name, value in values.items():
        if name in config.__dataclass_fields__ and not isinstance(getattr(config, name), tuple):
            assert getattr(config, name) == value


@pytest.mark.parametrize(
    ("config_class", "theirs"),
    [(UNetConfig, diffusers.UNet2DConditionModel), (AutoencoderKLConfig, diffusers.AutoencoderKL)],
)
def test_defaults_are_diffusers(config_class, theirs):
    """A field that a file leaves out has diffusers' default, and each of its fields is accepted with that."""
    parameters = inspect.signature(theirs.__init__).parameters
    defaults = {n: p.default for n, p in parameters.items() if p.default is not inspect.Parameter.empty}
    assert config_class.from_dict(defaults) == config_class()


@pytest.mark.parametrize(
    ("config_class", "theirs"),
    [
        (CLIPTextConfig, transformers.CLIPTextConfig),
        (CLIPVisionConfig, transformers.CLIPVisionConfig),
        (Dinov2Config, transformers.Dinov2Config),
    ],
)
def test_defaults_are_transformers(config_class, theirs):
    assert config_class.from_dict(theirs().to_diff_dict()) == config_class()
    written = theirs().to_dict()
    for field, value in dataclasses.asdict(config_class()).items():
        assert written[field] == value


def test_both_towers_of_clip():
    """What a tower leaves out has its default, also in files of old, which have each tower twice."""
    assert CLIPConfig.from_dict(transformers.CLIPConfig().to_dict()) == CLIPConfig()
    both = CLIPConfig.from_dict(CLIP_BOTH)
    assert both.vision_config == CLIPVisionConfig.from_dict(CLIP_VISION)
    assert (both.text_config.hidden_size, both.text_config.num_attention_heads) == (1024, 8)
    text = {"hidden_size": 768, "num_attention_heads": 12}
    old = {
        "model_type": "clip", "text_config": {**CLIP, "eos_token_id": 2}, "text_config_dict": text,
        "vision_config": CLIP_VISION, "vision_config_dict": {"hidden_size": 1024, "num_attention_heads": 16},
    }  # fmt: skip
    theirs = transformers.CLIPConfig(**copy.deepcopy(old))  # which changes what it is given
    ours = CLIPConfig.from_dict(old)
    for tower in ("text_config", "vision_config"):
        for field, value in dataclasses.asdict(getattr(ours, tower)).items():
            assert getattr(getattr(theirs, tower), field) == value
    with pytest.raises(ValueError, match=r"CLIPConfig: field 'text_config' must be an object, found \[\]"):
        CLIPConfig.from_dict({**CLIP_BOTH, "text_config": []})
    with pytest.raises(ValueError, match="CLIPTextConfig: field 'hidden_act' is 'relu'"):
        CLIPConfig.from_dict({**CLIP_BOTH, "text_config": {"hidden_act": "relu"}})


UNSUPPORTED = [
    *((UNetConfig, *case) for case in {
        "act_fn": "gelu", "center_input_sample": True, "mid_block_type": "UNetMidBlock2D",
        "only_cross_attention": True, "downsample_padding": 0, "dropout": 0.1,
        "reverse_transformer_layers_per_block": [[1]], "encoder_hid_dim": 8, "encoder_hid_dim_type": "text_proj",
        "num_attention_heads": 4, "dual_cross_attention": True, "class_embed_type": "timestep",
        "num_class_embeds": 10, "resnet_time_scale_shift": "scale_shift", "resnet_skip_time_act": True,
        "resnet_out_scale_factor": 2.0, "time_embedding_type": "fourier", "time_embedding_dim": 8,
        "time_embedding_act_fn": "silu", "timestep_post_act": "silu", "time_cond_proj_dim": 8, "conv_in_kernel": 1,
        "conv_out_kernel": 1, "attention_type": "gated", "class_embeddings_concat": True,
        "mid_block_only_cross_attention": True, "cross_attention_norm": "layer_norm",
        "addition_embed_type": "image", "unheard_of": 1,
        # Values that diffusers takes, or fails on later, and we do not.
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [[1, 2], 1, 1, 1], "cross_attention_dim": [768, 768, 768, 768],
        "layers_per_block": [1, 2], "attention_head_dim": 7, "norm_num_groups": 7, "block_out_channels": [],
        "in_channels": 0, "out_channels": "4", "norm_eps": None, "flip_sin_to_cos": 1, "freq_shift": 0.5,
        "use_linear_projection": "yes", "mid_block_scale_factor": "1", "sample_size": "64",
        "quantization_config": {"load_in_8bit": True}, "per_layer_config": {"0": {}},
    }.items()),
    *((AutoencoderKLConfig, *case) for case in {
        "act_fn": "gelu", "shift_factor": 0.1, "latents_mean": [0.0], "latents_std": [1.0], "use_quant_conv": False,
        "use_post_quant_conv": False, "mid_block_add_attention": False, "unheard_of": 1,
        "down_block_types": ["AttnDownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 3,
        "block_out_channels": 128, "layers_per_block": 0, "latent_channels": -4, "norm_num_groups": 96,
        "in_channels": True, "out_channels": None, "scaling_factor": 0, "force_upcast": "no",
    }.items()),
    *((CLIPTextConfig, *case) for case in {
        "model_type": "t5", "hidden_act": "relu", "unheard_of": 1, "num_attention_heads": 7, "hidden_size": "768",
        "vocab_size": 0, "intermediate_size": 1.5, "num_hidden_layers": -1, "max_position_embeddings": None,
        "projection_dim": 0, "layer_norm_eps": "1e-5", "eos_token_id": None,
        "quantization_config": {"load_in_8bit": True}, "pruned_heads": {"0": [1]}, "is_decoder": True,
        "add_cross_attention": True,
    }.items()),
    *((CLIPVisionConfig, *case) for case in {
        "model_type": "clip_text_model", "hidden_act": "relu", "unheard_of": 1, "num_attention_heads": 7,
        "image_size": 10, "patch_size": 0, "num_channels": "3", "layer_norm_eps": -1.0,
    }.items()),
    *((CLIPConfig, *case) for case in {
        "model_type": "siglip", "projection_dim": 0, "vision_config": "none", "unheard_of": 1,
    }.items()),
    *((Dinov2Config, *case) for case in {
        "model_type": "dinov2_with_registers", "hidden_act": "silu", "use_swiglu_ffn": True, "num_attention_heads": 7,
        "image_size": 10, "mlp_ratio": 0, "layer_norm_eps": -1.0, "qkv_bias": "yes", "unheard_of": 1,
    }.items()),
]  # fmt: skip


@pytest.mark.parametrize(("config_class", "field", "value"), UNSUPPORTED)
def test_unsupported_values_are_named(config_class, field, value):
    with pytest.raises(ValueError, match=rf"'{field}'") as error:
        config_class.from_dict({**CLASSES[config_class], field: value})
    assert "\n" not in str(error.value)
    assert config_class.__name__ in str(error.value)


@pytest.mark.parametrize("config_class", list(CLASSES))
def test_every_required_field_has_a_case(config_class):
    cases = {field for kind, field, _ in UNSUPPORTED if kind is config_class}
    assert cases >= set(config_class._REQUIRED)


@pytest.mark.parametrize(
    ("config_class", "values", "layers"),
    [
        (UNetConfig, UNET, 4 * 2),
        (UNetConfig, {**UNET, "layers_per_block": [1, 2, 3, 4]}, 10),
        (UNetConfig, UNET_SDXL, 2 * (1 + 2 + 10)),
        (AutoencoderKLConfig, VAE, 4 * 2),
        (CLIPTextConfig, CLIP, 12),
        (CLIPVisionConfig, CLIP_VISION, 40),
        (CLIPConfig, CLIP_BOTH, 12 + 40),
        (Dinov2Config, DINOV2, 24),
    ],
)
def test_the_number_of_layers(config_class, values, layers):
    assert config_class.from_dict(values).num_layers == layers


@pytest.mark.parametrize("field", ["addition_time_embed_dim", "projection_class_embeddings_input_dim"])
def test_text_time_needs_its_numbers(field):
    with pytest.raises(ValueError, match=field):
        UNetConfig.from_dict({**UNET_SDXL, field: None})


ABSURD = [
    *((UNetConfig, field, value) for field in ("norm_eps", "mid_block_scale_factor")
      for value in (float("inf"), float("-inf"), float("nan"), 1e300, 10**400)),
    (UNetConfig, "norm_eps", -1.0), (UNetConfig, "mid_block_scale_factor", 0), (UNetConfig, "freq_shift", 160),
    *((UNetConfig, "sample_size", size) for size in (10**9, 0, -64)),
    (AutoencoderKLConfig, "scaling_factor", float("inf")), (AutoencoderKLConfig, "scaling_factor", float("nan")),
    (CLIPTextConfig, "layer_norm_eps", float("nan")), (CLIPTextConfig, "layer_norm_eps", -1e-5),
    (CLIPTextConfig, "eos_token_id", 10**12), (CLIPTextConfig, "eos_token_id", -1),
    (CLIPTextConfig, "max_position_embeddings", 10**9),
    (UNetConfig, "x" * 5000, 1), (CLIPTextConfig, "hidden_act", "x" * 5000), (UNetConfig, "act_fn", "x" * 5000),
]  # fmt: skip


@pytest.mark.parametrize(("config_class", "field", "value"), ABSURD)
def test_absurd_values_are_named_in_a_short_line(config_class, field, value):
    with pytest.raises(ValueError, match=f"'{field[:100]}") as error:
        config_class.from_dict({**CLASSES[config_class], field: value})
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_height_and_width_are_one_size():
    assert UNetConfig.from_dict({**UNET, "sample_size": [64, 64]}) == UNetConfig.from_dict(UNET)
    assert AutoencoderKLConfig.from_dict({**VAE, "sample_size": [64, 64]}).downscale == 8
    with pytest.raises(ValueError, match=r"'sample_size' is .* only squares are supported"):
        UNetConfig.from_dict({**UNET, "sample_size": [64, 96]})


def test_fields_of_a_moving_average_are_left_out_in_one_line(caplog):
    """As diffusers' EMAModel writes them into the network's config.json."""
    network = diffusers.AutoencoderKL(norm_num_groups=4)
    average = EMAModel(network.parameters(), model_cls=diffusers.AutoencoderKL, model_config=network.config)
    state = {name: value for name, value in average.state_dict().items() if name != "shadow_params"}
    assert len(state) >= 7
    with caplog.at_level("INFO"):
        for config_class, values in CLASSES.items():
            assert config_class.from_dict({**values, **state}) == config_class.from_dict(values)
    assert len(caplog.records) == len(CLASSES)
    assert all(name in record.getMessage() for name in state for record in caplog.records)


def test_general_fields_of_transformers_are_left_out():
    """All that configurations of transformers have in common, and what their older versions wrote besides."""
    names = {field.name for field in dataclasses.fields(transformers.PretrainedConfig)}
    names |= set(transformers.GenerationConfig._get_default_generation_params())
    older = {
        "output_attentions": True, "output_hidden_states": True, "torchscript": False, "pruned_heads": {},
        "is_decoder": False, "add_cross_attention": False, "tie_encoder_decoder": False, "num_labels": 2,
        "finetuning_task": None, "prefix": None, "task_specific_params": None, "tie_word_embeddings": True,
        "gradient_checkpointing": False, "quantization_config": None,
    }  # fmt: skip
    values = {**dict.fromkeys(names - set(CLIPTextConfig.__dataclass_fields__), None), **older}
    both = {**CLIP_BOTH, "text_config": {**values, **CLIP}, "vision_config": {**values, **CLIP_VISION}}
    assert CLIPConfig.from_dict(both).text_config == CLIPTextConfig.from_dict(CLIP)
    for config_class, published in CLASSES.items():
        assert config_class.from_dict({**values, **published}) == config_class.from_dict(published)
