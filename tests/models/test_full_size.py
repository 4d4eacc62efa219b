"""The UNet of SD1.5 at its full size against diffusers' in PyTorch: about 8 GB of memory and two minutes."""

import gc

import diffusers
import jax
import numpy as np
import pytest
import torch
from flax import nnx

from sid_jax.teachers import open_component

SD15 = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}


@pytest.mark.slow
def test_sd15_is_diffusers(tmp_path):
    rng = np.random.default_rng(0)
    sample = rng.standard_normal((1, 64, 64, 4)).astype(np.float32)
    context = rng.standard_normal((1, 77, 768)).astype(np.float32)
    time = np.array([625])

    expected = theirs(tmp_path, sample, time, context)
    component = open_component(tmp_path, "UNet2DConditionModel").load()

    def run(params, sample, time, context):
        return nnx.merge(component.graphdef, params)(sample, time, encoder_hidden_states=context)

    lowered = jax.jit(run).lower(component.params, sample, time, context)
    compiled = lowered.compile(compiler_options={"xla_backend_optimization_level": 0})
    actual = np.asarray(compiled(component.params, sample, time, context))
    assert sum(leaf.size for leaf in jax.tree.leaves(component.params)) == 859_520_964
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    print(f"relative error {error:.1e}")
    assert error <= 1e-3


def theirs(folder, sample, time, context):
    """PyTorch's prediction; the network is left in `folder`, and none of it in memory."""
    torch.manual_seed(0)
    network = diffusers.UNet2DConditionModel(**SD15).eval()
    with torch.no_grad():
        inputs = torch.from_numpy(sample).permute(0, 3, 1, 2), torch.from_numpy(time), torch.from_numpy(context)
        prediction = network(*inputs).sample.permute(0, 2, 3, 1).numpy().copy()
    network.save_pretrained(folder)
    del network
    gc.collect()
    return prediction
