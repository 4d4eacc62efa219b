"""Guided predictions, their cost, the presets and prompt dropout."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from sid_jax.sid import Condition, Guidance, drop_prompts, guided, preset

B = 3
X_T = np.random.default_rng(0).normal(size=(B, 4, 4, 2)).astype(np.float32)
T = np.array([1, 50, 900], np.int32)
COND = {"text": np.arange(B * 2, dtype=np.float32).reshape(B, 2), "ids": np.array([[1], [2], [3]])}
EMPTY = {"text": np.full((1, 2), -1, np.float32), "ids": np.zeros((1, 1), int)}
CONDITION = Condition(COND, EMPTY)


class Counting:
    """A network that knows the batch sizes it was called with."""

    def __init__(self):
        self.batches = []

    def __call__(self, x_t, t, cond):
        self.batches.append(len(x_t))
        assert len(t) == len(x_t) == len(cond["text"]) == len(cond["ids"])
        text = cond["text"].sum(-1) + 10 * cond["ids"][:, 0]
        return (x_t * (1 + t[:, None, None, None]) + text[:, None, None, None]).astype(jnp.bfloat16)


def separately(kappa):
    empty = {name: np.broadcast_to(value, COND[name].shape) for name, value in EMPTY.items()}
    with_text, without_text = (np.asarray(Counting()(X_T, T, c), np.float32) for c in (COND, empty))
    return without_text + np.float32(kappa) * (with_text - without_text)


@pytest.mark.parametrize("kappa", [1.0, 0.0, 1.5, -1.0, 7.5])
def test_equals_two_passes(kappa):
    (output,) = guided(Counting(), X_T, T, CONDITION, (kappa,))
    assert output.dtype == jnp.float32
    np.testing.assert_allclose(output, separately(kappa), rtol=1e-6)


@pytest.mark.parametrize(
    ("scales", "batch"),
    [((1.0,), B), ((0.0,), B), ((1.0, 1.0), B), ((1.5,), 2 * B), ((1.5, 0.0), 2 * B), ((0, 1), 2 * B)],
)
def test_one_pass_and_doubled_only_where_needed(scales, batch):
    network = Counting()
    outputs = guided(network, X_T, T, CONDITION, scales)
    assert network.batches == [batch]
    for output, scale in zip(outputs, scales, strict=True):
        np.testing.assert_allclose(output, separately(scale), rtol=1e-6)


def test_without_guidance_the_empty_prompt_is_not_read():
    (output,) = guided(Counting(), X_T, T, Condition(COND, None), (1.0,))
    np.testing.assert_allclose(output, separately(1.0))


def test_presets():
    assert preset("none") == Guidance(1, 1, 1, 1, 0)
    assert preset("lsg", 2.0) == Guidance(2, 2, 2, 2, 0.1)
    assert preset("zero_cfg") == Guidance(0, 0, 0, 1, 0.1)
    assert preset("anti_cfg") == Guidance(-1, -1, -1, 1, 0.1)
    assert dataclasses.replace(preset("lsg", 2.0), kappa4=4.5).kappa4 == 4.5


@pytest.mark.parametrize(
    ("scales", "dropout"),
    [((1, 1, 1, 1), 0), ((1, 1, 4, 4), 0), ((2, 1, 1, 1), 0.1), ((1, 0, 1, 1), 0.1), ((1, -1, -1, 1), 0.1)],
)
def test_published_dropout_is_that_of_a_guided_fake_network(scales, dropout):
    assert Guidance(*scales).published_dropout == dropout


def test_unknown_strategy():
    with pytest.raises(ValueError, match=r"guidance\.strategy: 'cfg' is not one of none, lsg, zero_cfg, anti_cfg"):
        preset("cfg")


@pytest.mark.parametrize("probability", [-0.1, 1.1])
def test_dropout_is_a_probability(probability):
    with pytest.raises(ValueError, match=r"guidance\.prompt_dropout"):
        Guidance(prompt_dropout=probability)


def test_drop_prompts():
    result = drop_prompts(jnp.array([True, False, True]), COND, EMPTY)
    np.testing.assert_array_equal(result["text"], [[-1, -1], COND["text"][1], [-1, -1]])
    np.testing.assert_array_equal(result["ids"], [[0], [2], [0]])
