"""The UNet against diffusers' in PyTorch, float32, on small networks with random weights."""

import diffusers
import numpy as np
import pytest
import torch

from sid_jax.models import Execution

SD15 = {
    "sample_size": 8,
    "block_out_channels": (16, 32, 48),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 2,
    "attention_head_dim": 4,
    "cross_attention_dim": 24,
    "norm_num_groups": 8,
}
SD21 = {**SD15, "attention_head_dim": (2, 4, 6), "use_linear_projection": True, "layers_per_block": 1}
SDXL = {
    **SD21,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 20,
}
SMALL = {
    **SD15,
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
}
UPCAST = {**SMALL, "upcast_attention": True, "norm_eps": 1e-3}
LAYERS = {**SMALL, "layers_per_block": (2, 1), "flip_sin_to_cos": False, "freq_shift": 1}
SCALES = {**SMALL, "in_channels": 3, "out_channels": 5, "mid_block_scale_factor": 2.0, "attention_head_dim": (1, 2)}
# Chunks of attention, blocks that are computed again, and equal ones as a loop.
FRUGAL = Execution("chunked", long_attention=1, remat="full", scan=True)
TIMES = np.array([0, 1, 20, 625, 979, 999])


@pytest.mark.parametrize(
    ("config", "size", "execution"),
    [
        pytest.param(SD15, (8, 8), None, id="sd15"),
        pytest.param(SD15, (7, 13), None, id="sd15-odd"),
        pytest.param(SD21, (8, 12), None, id="sd21"),
        pytest.param(SDXL, (8, 8), FRUGAL, id="sdxl"),
        pytest.param(SDXL, (5, 9), None, id="sdxl-odd"),
        pytest.param(UPCAST, (4, 4), None, id="upcast"),
        pytest.param(LAYERS, (4, 4), None, id="layers-per-level"),
        pytest.param(SCALES, (4, 4), None, id="scales"),
    ],
)
def test_unet_and_its_features_are_diffusers(config, size, execution, varied, ours, close, seeded):
    torch.manual_seed(0)
    theirs = varied(diffusers.UNet2DConditionModel(**config))
    batch = len(TIMES)
    sample, our_sample = seeded(1, batch, theirs.config.in_channels, *size)
    context, our_context = seeded(2, batch, 11, 24)
    added, our_added = None, None
    if "addition_embed_type" in config:
        text, our_text = seeded(3, batch, 20)
        ids = np.tile(np.array([96, 80, 0, 5, 1024, 8], np.float32), (batch, 1))
        added = {"text_embeds": text, "time_ids": torch.from_numpy(ids)}
        our_added = {"text_embeds": our_text, "time_ids": ids}
    seen = []
    theirs.mid_block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        expected = theirs(sample, torch.from_numpy(TIMES), context, added_cond_kwargs=added).sample
    cond = {"encoder_hidden_states": our_context, "added_cond_kwargs": our_added}
    network = ours(theirs, execution=execution)
    if size == (8, 8):  # the features are the output of the middle block
        actual, features = network(our_sample, TIMES, **cond, method="with_features")
        close(features, seen[0])
    else:
        actual = network(our_sample, TIMES, **cond)
    close(actual, expected)
