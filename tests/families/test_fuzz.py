"""Whatever the bytes of a header or the values of a config: it is read, or refused in one line. Nothing else."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from sid_jax.errors import UserError
from sid_jax.families.schedulers import process_of
from sid_jax.formats.safetensors_files import open_weights
from sid_jax.runtime.storage.json_files import read_json
from sid_jax.teachers import build

bounded = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
TENSORS = {"a.weight": np.ones((2, 3), np.float32), "b": np.zeros(5, np.float16)}
WHOLE = save(TENSORS, {"format": "pt"})
NUMBERS = st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([0, -1, 7, 10**6, 10**18])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
VAE = {
    "block_out_channels": [4],
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
    "norm_num_groups": 2,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "scaling_factor": 0.2,
    "act_fn": "silu",
}
UNET = {
    "block_out_channels": [4, 8],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 2,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "cross_attention_dim": 4,
    "attention_head_dim": [2, 4],
    "transformer_layers_per_block": 1,
    "use_linear_projection": False,
    "sample_size": 8,
    "act_fn": "silu",
}
SCHEDULER = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "trained_betas": None,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "use_flow_sigmas": False,
    "timestep_type": "discrete",
    "variance_type": None,
    "clip_sample": False,
    "_class_name": "DDIMScheduler",
}
CLIP = {
    "vocab_size": 10,
    "hidden_size": 4,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "max_position_embeddings": 7,
    "hidden_act": "gelu",
    "eos_token_id": 9,
    "layer_norm_eps": 1e-5,
    "model_type": "clip_text_model",
}


def read_or_refuse(folder, content: bytes):
    """Opens and reads `content` as a file of weights; what it holds at most is what is there."""
    (folder / "model.safetensors").write_bytes(content)
    try:
        weights = open_weights(folder, "model")
        arrays = dict(weights.tensors())
    except UserError as error:
        assert str(folder / "model.safetensors") in str(error)
        assert "\n" not in str(error)
        return
    assert sum(array.nbytes for array in arrays.values()) <= 4 * len(content)  # a value of one byte takes four
    assert {name: array.shape for name, array in arrays.items()} == {n: s.shape for n, s in weights.stored.items()}


@bounded
@given(st.binary(max_size=200))
def test_any_bytes(tmp_path, content):
    read_or_refuse(tmp_path, content)


@bounded
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_one_byte_changed(tmp_path, position, byte):
    read_or_refuse(tmp_path, WHOLE[:position] + bytes([byte]) + WHOLE[position + 1 :])


@bounded
@given(
    st.sampled_from(["F32", "F16", "BF16", "F8_E4M3", "I64", "BOOL", "nonsense"]),
    st.lists(st.integers(0, 2**64), max_size=4),
    st.tuples(st.integers(0, 64), st.integers(0, 2**64)),
    st.binary(max_size=32),
)
def test_headers_that_promise_too_much(tmp_path, dtype, shape, offsets, data):
    header = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()
    read_or_refuse(tmp_path, len(header).to_bytes(8, "little") + header + data)


@bounded
@given(JSON)
def test_any_index(tmp_path, value):
    index = tmp_path / "other.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": value}))
    with pytest.raises(UserError) as error:
        open_weights(tmp_path, "other")
    assert "\n" not in str(error.value)


@bounded
@given(st.text(max_size=60) | JSON.map(json.dumps))
def test_any_json(tmp_path, text):
    (tmp_path / "x.json").write_text(text, encoding="utf-8", errors="replace")
    try:
        assert isinstance(read_json(tmp_path / "x.json"), dict)
    except UserError as error:
        assert "\n" not in str(error)


@settings(bounded, max_examples=100)
@given(
    st.sampled_from([("AutoencoderKL", VAE), ("CLIPTextModel", CLIP), ("UNet2DConditionModel", UNET)]).flatmap(
        lambda pair: st.tuples(st.just(pair), st.sampled_from(sorted(pair[1])), JSON)
    )
)
def test_any_value_of_a_config(case):
    (class_name, config), field, value = case
    depths = {"layers_per_block", "num_hidden_layers", "transformer_layers_per_block"}
    if field in depths and isinstance(value, int) and 9 < value <= 1000:
        value = 9  # such networks are fine, but take their time
    try:
        component = build(class_name, {**config, field: value}, where="folder/config.json")
    except UserError as error:
        assert str(error).startswith("folder/config.json: ")
        assert "\n" not in str(error)
    else:
        assert component.class_name == class_name


@bounded
@given(st.sampled_from(sorted(SCHEDULER)), JSON | st.lists(st.floats(0, 1)))
def test_any_value_of_a_scheduler(field, value):
    try:
        process = process_of({**SCHEDULER, field: value})
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert len(process.alphas_cumprod) <= 100_000


@pytest.mark.parametrize("steps", [10**12, 0, "1000", 1000.0])
def test_impossible_numbers_of_times(steps):
    with pytest.raises(ValueError, match=r"num_train_timesteps .* is not in"):
        process_of({**SCHEDULER, "num_train_timesteps": steps})
