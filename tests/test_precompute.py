"""Text that is encoded once, into a cache: the same conditions and losses as where it is encoded in every update."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest

import sid_jax.config
from sid_jax import train
from sid_jax.errors import UserError
from sid_jax.experiment import build
from sid_jax.experiment.condition_cache import open_conditions
from sid_jax.experiment.networks import params_of
from sid_jax.runtime.cli import config_file
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.teachers import Component

PROMPTS = ["a cat", "a much longer prompt about a dog on a beach", "a cat", "Ωμέγα"]


@pytest.fixture
def opened(pipelines, tmp_path):
    """A function from a kind of pipeline and overrides to the conditions of a run."""

    def make(kind, *overrides, shown=()):
        pairs = [("teacher", str(pipelines[kind])), ("resolution", "16"), *overrides]
        config = config_file.load("configs/sd15_1step.py", sid_jax.config.default(), pairs)
        teacher = build.open_teacher(config)
        mesh = meshes.make_mesh(devices=jax.devices()[:1])
        return open_conditions(config, teacher, PROMPTS, mesh, str(tmp_path / "run"), shown)

    return make


@pytest.fixture
def no_text_encoder(monkeypatch):
    """Fails where the parameters of a network are read."""
    return lambda: monkeypatch.setattr(Component, "load", lambda *_, **__: pytest.fail("a network was read"))


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_cache_has_what_the_encoders_say(opened, kind, precision):
    overrides = [("precision.compute", precision), ("precision.teacher", precision)]
    in_step, cached = opened(kind, *overrides), opened(kind, *overrides, ("text.precompute", "true"))
    assert cached.parts == () and len(in_step.parts) == (2 if kind == "sdxl" else 1)
    asked = ["a cat", "", "Ωμέγα"]
    encode = jax.jit(functools.partial(in_step.encode_condition, resolution=16))
    expected = encode(params_of(in_step.parts), in_step.read(asked))
    found = cached.encode_condition((), cached.read(asked), 16)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    if kind == "sdxl":
        assert found["added_cond_kwargs"]["time_ids"].tolist() == [[16, 16, 0, 0, 16, 16]] * 3
        assert not found["encoder_hidden_states"][1].any()  # as SDXL's empty prompt is
    # Not to the bit: how a matrix product is summed depends on the size of the batch.
    tolerance = 1e-5 if precision == "float32" else 2e-2
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=tolerance, atol=tolerance)


def test_a_cache_is_made_once(opened, no_text_encoder, tmp_path):
    first = opened("sd", ("text.precompute", "true"))
    no_text_encoder()
    again = opened("sd", ("text.precompute", "true"))
    same = jax.tree.map(np.array_equal, first.read(PROMPTS), again.read(PROMPTS))
    assert all(jax.tree.leaves(same))
    assert len(list((tmp_path / "run/text").iterdir())) == 1


def test_what_is_only_shown_has_a_cache_of_its_own(opened, no_text_encoder, tmp_path):
    """So that the large one stays as it is, and what is trained on is the same whatever is shown."""
    before = opened("sd", ("text.precompute", "true"))
    shown = opened("sd", ("text.precompute", "true"), shown=["a fox", "a cat"])
    assert len(list((tmp_path / "run/text").iterdir())) == 2
    no_text_encoder()
    same = jax.tree.map(np.array_equal, before.read(PROMPTS), shown.read(PROMPTS))
    assert all(jax.tree.leaves(same))
    assert jax.tree.leaves(shown.read(["a cat", "a fox", "a fox"]))[0].shape[0] == 3
    opened("sd", ("text.precompute", "true"), shown=["a cat", ""])  # which are in the large one
    assert len(list((tmp_path / "run/text").iterdir())) == 2


@pytest.mark.parametrize("override", [("resolution", "32"), ("precision.compute", "float32")])
def test_other_settings_have_another_cache(opened, tmp_path, override):
    opened("sd", ("text.precompute", "true"), ("text.cache", str(tmp_path / "shared")))
    opened("sd", ("text.precompute", "true"), ("text.cache", str(tmp_path / "shared")), override)
    assert len(list((tmp_path / "shared").iterdir())) == 2


def test_other_weights_have_another_cache(opened, pipelines, tmp_path):
    sd_copy = shutil.copytree(pipelines["sd"], tmp_path / "copy")
    precomputed = [("text.precompute", "true"), ("text.cache", str(tmp_path / "shared"))]
    opened("sd", *precomputed)
    opened("sd", *precomputed, ("teacher", str(sd_copy)))
    assert len(list((tmp_path / "shared").iterdir())) == 1  # the same files elsewhere
    file = sd_copy / "text_encoder/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    opened("sd", *precomputed, ("teacher", str(sd_copy)))
    assert len(list((tmp_path / "shared").iterdir())) == 2


def test_a_cache_in_a_bucket_is_an_error(opened):
    with pytest.raises(UserError, match=r"gs://x is in a bucket, and embeddings must be on a disk: set .* text.cache"):
        opened("sd", ("text.precompute", "true"), ("text.cache", "gs://x"))


def test_a_run_has_the_same_losses(finished, tiny_arguments, tmp_path):
    train.main([*tiny_arguments, "--config.text.precompute=true"])
    in_step, cached = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (finished, tmp_path / "run")
    )
    assert [line.keys() for line in in_step] == [line.keys() for line in cached]
    # The programs round differently. The generator's gradient is the difference of two networks that begin as one, in
    # which most digits cancel, so that its norm is less equal than the losses.
    for a, b in zip(in_step, cached, strict=True):
        for name in ("fake_loss", "generator_loss"):
            np.testing.assert_allclose(a[name], b[name], rtol=3e-5, err_msg=name)
