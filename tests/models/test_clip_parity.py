"""CLIP's text encoders against transformers' in PyTorch, float32, on small networks with random weights."""

import numpy as np
import pytest
import torch
import transformers

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


def _prompts(length: int) -> np.ndarray:
    """An ordinary prompt, an empty one, one that fills all places, and one that is padded by "!" (id 0) as SDXL's."""
    words = np.random.default_rng(0).integers(3, START, (4, length))
    words[:, 0] = START
    words[0, 5:], words[1, 1:], words[2, -1:] = END, END, END
    words[3, 4], words[3, 5:] = END, 0
    return words
