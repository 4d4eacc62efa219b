"""CLIP's towers against transformers' in PyTorch, float32, on small networks with random weights."""

import jax
import numpy as np
import pytest
import torch
import transformers

from sid_jax.teachers import build

WORDS, START, END = 60, 58, 59
SMALL = {
    "vocab_size": WORDS,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "projection_dim": 20,
    "bos_token_id": START,
    "eos_token_id": END,
}


@pytest.mark.parametrize(
    ("change", "length"),
    [
        pytest.param({}, 77, id="sd15"),
        pytest.param({"hidden_act": "gelu", "num_hidden_layers": 2}, 77, id="sd21"),
        pytest.param({"eos_token_id": 2}, 20, id="published-eos"),  # as the configs of SD1.5 and SDXL say, by mistake
        pytest.param({"layer_norm_eps": 1e-3}, 10, id="short"),
    ],
)
@pytest.mark.parametrize("kind", ["CLIPTextModel", "CLIPTextModelWithProjection"])
def test_text_encoder_is_transformers(kind, change, length, varied, ours, close):
    torch.manual_seed(0)
    theirs = varied(getattr(transformers, kind)(transformers.CLIPTextConfig(**{**SMALL, **change})))
    ids = _prompts(length)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(ids), output_hidden_states=True)
    actual = ours(theirs)(ids)
    close(actual.last_hidden_state, expected.last_hidden_state)
    assert len(actual.hidden_states) == len(expected.hidden_states)
    for state, expected_state in zip(actual.hidden_states, expected.hidden_states, strict=True):
        close(state, expected_state)
    close(actual.pooled, expected.text_embeds if kind.endswith("Projection") else expected.pooler_output)


H14_TEXT = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}


def published(width, text, vision):
    return {"model_type": "clip", "projection_dim": width, "text_config": text, "vision_config": vision}


PUBLISHED = {
    "l14": published(
        768,
        {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
         "patch_size": 14},
    ),
    "h14": published(
        1024, H14_TEXT,
        {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
         "patch_size": 14},
    ),
    "g14": published(
        1024, H14_TEXT,
        {"hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 40, "num_attention_heads": 16,
         "patch_size": 14},
    ),
    "bigg14": published(
        1280,
        {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32},
        {"hidden_size": 1664, "intermediate_size": 8192, "num_hidden_layers": 48, "num_attention_heads": 16,
         "patch_size": 14},
    ),
}  # fmt: skip
GELU = {"hidden_act": "gelu"}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}


@pytest.mark.parametrize(
    ("text", "vision"),
    [
        pytest.param({}, {}, id="l14"),
        pytest.param({"eos_token_id": 2, **GELU}, {"hidden_size": 176, "num_attention_heads": 2, **GELU}, id="g14"),
    ],
)
def test_both_towers_are_transformers(text, vision, varied, ours, close, seeded):
    torch.manual_seed(0)
    towers = {"text_config": {**SMALL, **text}, "vision_config": {**VISION, **vision}}
    config = transformers.CLIPConfig(**towers, projection_dim=20)
    theirs = varied(transformers.CLIPModel(config))
    ids, (pixels, ours_pixels) = _prompts(77), seeded(0, 4, 3, 56, 56)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(ids), pixels)
    actual = ours(theirs)(ours_pixels, ids)
    close(actual.image, expected.image_embeds, 1e-5)
    close(actual.text, expected.text_embeds, 1e-5)
    cosines = (actual.image * actual.text).sum(-1) * np.exp(theirs.logit_scale.item())
    close(cosines, expected.logits_per_image.diagonal(), 1e-5)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("l14", 427_616_513), ("h14", 986_109_441), ("g14", 1_366_678_273), ("bigg14", 2_539_567_105)],
)
def test_published_shapes(name, parameters):
    """As many parameters as transformers' CLIPModel of the same configuration has; nothing is allocated."""
    component = build("CLIPModel", PUBLISHED[name])
    assert sum(leaf.size for leaf in jax.tree.leaves(component.params)) == parameters


def _prompts(length: int) -> np.ndarray:
    """An ordinary prompt, an empty one, one that fills all places, and one that is padded by "!" (id 0) as SDXL's."""
    words = np.random.default_rng(0).integers(3, START, (4, length))
    words[:, 0] = START
    words[0, 5:], words[1, 1:], words[2, -1:] = END, END, END
    words[3, 4], words[3, 5:] = END, 0
    return words
