"""Text conditioning against what the diffusers pipelines give their UNets."""

import dataclasses
import functools
from types import SimpleNamespace

import diffusers
import jax
import numpy as np
import pytest
import torch
from pipelines import load_pipeline

from sid_jax.errors import UserError
from sid_jax.families.stable_diffusion import combine_text, teacher_of

PROMPTS = ["A cat.", "", "two dogs, " * 50]


def close(actual, expected):
    actual, expected = np.asarray(actual), expected.detach().numpy()
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.fixture(scope="module")
def teachers(pipelines):
    return {kind: load_pipeline(folder, parts=("text_encoders",)) for kind, folder in pipelines.items()}


def tokenise(pipeline, prompts):
    return teacher_of(pipeline).conditions.read(prompts)


def encoded(pipeline, prompts, zero_empty=None):
    conditions = teacher_of(pipeline).conditions
    if zero_empty is not None:
        combine = functools.partial(combine_text, zero_empty=zero_empty)
        conditions = dataclasses.replace(conditions, combine=combine)
    params = tuple(component.params for component in pipeline.text_encoders)
    encode = jax.jit(functools.partial(conditions.encode_condition, resolution=96))
    return encode(params, conditions.read(prompts))


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_tokens_are_those_of_the_pipeline(teachers, kind):
    teacher = teachers[kind]
    for tokenizer, ids in zip(teacher.tokenizers, tokenise(teacher, PROMPTS), strict=True):
        assert (ids.shape, ids.dtype) == ((3, 77), np.int32)
        expected = tokenizer(PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="np")
        np.testing.assert_array_equal(ids, expected.input_ids)
        assert ids[2, -1] == tokenizer.eos_token_id


def test_no_prompts_are_no_tokens(teachers):
    assert [ids.shape[0] for ids in tokenise(teachers["sd"], ["a"])] == [1]


def test_tokens_beyond_the_text_encoder_are_refused(teachers):
    teacher = teachers["sd"]
    text = teacher.text_encoders[0]
    fewer = dataclasses.replace(text, config=dataclasses.replace(text.config, vocab_size=100))
    with pytest.raises(UserError, match=r"token 513 of the tokenizer is beyond the text encoder's 100 words"):
        tokenise(dataclasses.replace(teacher, text_encoders=(fewer,)), PROMPTS)


def test_stable_diffusion(teachers, pipelines):
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(pipelines["sd"])
    expected, _ = pipeline.encode_prompt(PROMPTS, "cpu", 1, False)
    cond = encoded(teachers["sd"], PROMPTS)
    assert set(cond) == {"encoder_hidden_states"}
    close(cond["encoder_hidden_states"], expected)


@pytest.mark.parametrize("zero_empty", [False, True, None])
def test_stable_diffusion_xl(teachers, pipelines, zero_empty):
    """An empty prompt is zeros where diffusers has no negative prompt and the pipeline's config says so."""
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(pipelines["sdxl"])
    context, _, pooled, _ = pipeline.encode_prompt(PROMPTS, None, "cpu", 1, False)
    if zero_empty is not False:
        assert pipeline.config.force_zeros_for_empty_prompt
        context[1], pooled[1] = 0, 0
    cond = encoded(teachers["sdxl"], PROMPTS, zero_empty=zero_empty)
    close(cond["encoder_hidden_states"], context)
    close(cond["added_cond_kwargs"]["text_embeds"], pooled)
    sizes = pipeline._get_add_time_ids((96, 96), (0, 0), (96, 96), torch.float32, text_encoder_projection_dim=12)
    close(cond["added_cond_kwargs"]["time_ids"], sizes.repeat(3, 1))


def test_the_sizes_that_stable_diffusion_xl_is_told(pipelines):
    """Height before width, as the pipeline has them."""
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(pipelines["sdxl"], vae=None)
    sizes = pipeline._get_add_time_ids((96, 64), (0, 0), (96, 64), torch.float32, text_encoder_projection_dim=12)
    outputs = [SimpleNamespace(hidden_states=[np.zeros((2, 3, 4))] * 2, pooled=np.zeros((2, 12)))] * 2
    cond = combine_text(outputs, lambda: np.zeros(2, bool), (96, 64), zero_empty=False)
    close(cond["added_cond_kwargs"]["time_ids"], sizes.repeat(2, 1))


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_the_unet_takes_it(pipelines, kind):
    """The whole way: prompts to a prediction, as PyTorch's pipeline makes it."""
    teacher = load_pipeline(pipelines[kind], parts=("unet", "text_encoders"))
    pipeline = getattr(diffusers, teacher.model_index["_class_name"]).from_pretrained(pipelines[kind])
    sample = np.random.default_rng(0).standard_normal((2, 6, 4, 4)).astype(np.float32)
    prompts, times = ["A cat.", "a dog"], np.array([10, 700])
    arguments = {"prompt": prompts, "device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    embeds = pipeline.encode_prompt(**arguments)
    added = None
    if kind == "sdxl":
        sizes = torch.tensor([[96.0, 96, 0, 0, 96, 96]]).repeat(2, 1)
        added = {"text_embeds": embeds[2], "time_ids": sizes}
    expected = pipeline.unet(
        torch.from_numpy(sample).permute(0, 3, 1, 2), torch.from_numpy(times), embeds[0], added_cond_kwargs=added
    ).sample
    cond = encoded(teacher, prompts)
    actual = jax.jit(lambda x, t, cond: teacher.unet.module(x, t, **cond))(sample, times, cond)
    close(actual, expected.permute(0, 2, 3, 1))
