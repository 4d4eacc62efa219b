"""DINOv2 against transformers' in PyTorch, and its position embeddings against torch.hub's."""

import jax
import numpy as np
import pytest
import torch
import transformers

from sid_jax.models.layers.bicubic import torch_bicubic
from sid_jax.teachers import build

LARGE = {
    "hidden_size": 1024, "image_size": 518, "model_type": "dinov2", "num_attention_heads": 16, "num_hidden_layers": 24,
    "layerscale_value": 1.0, "mlp_ratio": 4, "patch_size": 14, "qkv_bias": True, "use_swiglu_ffn": False,
    "hidden_act": "gelu", "stage_names": ["stem"],
}  # fmt: skip


@pytest.fixture
def theirs(varied):
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=70, patch_size=14
    )
    return varied(transformers.Dinov2Model(config))


def test_features_are_transformers(theirs, ours, close, seeded):
    pixels, our_pixels = seeded(0, 2, 3, 56, 42)
    with torch.no_grad():
        expected = theirs(pixels).pooler_output
    close(ours(theirs, hub_positions=False)(our_pixels), expected, 1e-5)


def test_features_with_the_positions_of_torch_hub(theirs, ours, close, seeded):
    """The same network, in which transformers is given the embeddings that torch.hub's code computes for 4 x 4."""
    pixels, our_pixels = seeded(0, 2, 3, 56, 56)
    embeddings = theirs.embeddings
    run = ours(theirs)
    with torch.no_grad():
        kept = embeddings.position_embeddings
        grid = kept[:, 1:].reshape(1, 5, 5, -1).permute(0, 3, 1, 2)
        grid = torch.nn.functional.interpolate(grid, scale_factor=(4.1 / 5, 4.1 / 5), mode="bicubic")
        assert grid.shape[2:] == (4, 4)
        positions = torch.cat([kept[:, :1], grid.permute(0, 2, 3, 1).reshape(1, 16, -1)], 1)
        embeddings.interpolate_pos_encoding = lambda *_: positions
        expected = theirs(pixels).pooler_output
    close(run(our_pixels), expected, 1e-5)


@pytest.mark.parametrize(("size", "wanted"), [(37, 16), (256, 224), (5, 9)])
def test_bicubic_is_torchs(size, wanted):
    values = torch.randn(1, 1, size, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    resize = torch.nn.functional.interpolate
    expected = resize(values, size=(wanted, 1), mode="bicubic")[0, 0, :, 0].numpy()
    np.testing.assert_allclose(torch_bicubic(size, wanted) @ values[0, 0, :, 0].numpy(), expected, atol=1e-6)
    factor = (wanted + 0.1) / size
    expected = resize(values, scale_factor=(factor, 1), mode="bicubic")[0, 0, :, 0].numpy()
    np.testing.assert_allclose(
        torch_bicubic(size, wanted, 1 / factor) @ values[0, 0, :, 0].numpy(), expected, atol=1e-6
    )


def test_the_published_shape():
    with torch.device("meta"):
        theirs = transformers.Dinov2Model(transformers.Dinov2Config(**{**LARGE, "stage_names": None}))
    expected = sum(parameter.numel() for parameter in theirs.parameters())
    assert sum(leaf.size for leaf in jax.tree.leaves(build("Dinov2Model", LARGE).params)) == expected == 304_368_640
