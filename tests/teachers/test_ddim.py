"""Our DDIM and our whole pipeline against diffusers' own."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from pipelines import load_teacher

from sid_jax.experiment.networks import networks_of, params_of
from sid_jax.sid import Condition, noise_from_array
from sid_jax.teachers.samplers.ddim import DDIM

PROMPTS = ["a handwritten three", "a handwritten eight"]


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_pictures_equal_those_of_the_stock_pipeline(tiny, steps, guidance):
    teacher = load_teacher(tiny / "teacher")
    z = np.random.default_rng(0).normal(size=(2, *teacher.space.shape(32))).astype(np.float32)

    networks = networks_of(teacher, 32)
    read, text = teacher.conditions.read, params_of(teacher.conditions.parts)
    ddim = DDIM(teacher.process, steps, guidance)
    latents = ddim.generate(
        lambda x, t, c: networks.denoiser(teacher.denoiser.params, x, t, c, None),
        noise_from_array(z[None]),
        Condition(*(networks.encode_condition(text, read(prompts)) for prompts in (PROMPTS, [""]))),
    )
    ours = teacher.space.decode(params_of(teacher.space.parts), latents)

    pipe = StableDiffusionPipeline.from_pretrained(tiny / "teacher")
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        PROMPTS,
        num_inference_steps=steps,
        guidance_scale=guidance,
        height=32,
        width=32,
        latents=torch.from_numpy(z).permute(0, 3, 1, 2),
        output_type="np",
    ).images
    np.testing.assert_allclose(np.asarray(ours), theirs * 255, atol=1)
