"""Our DDIM and our whole pipeline against diffusers' own."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from pipelines import load_teacher

from sid_jax.experiment.networks import networks_of, params_of
from sid_jax.families.schedulers import process_of
from sid_jax.sid import Condition, noise_from_array
from sid_jax.teachers.samplers.ddim import DDIM

PROMPTS = ["a handwritten three", "a handwritten eight"]


@pytest.mark.parametrize(("steps", "guidance"), [(1, 1.0), (7, 1.0), (50, 4.0)])
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


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_a_teacher_with_zero_terminal_snr_is_sampled_from_its_last_time(steps):
    config = {
        "_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
        "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
        "set_alpha_to_one": False, "clip_sample": False,
    }  # fmt: skip
    stock = DDIMScheduler.from_config(config)
    stock.set_timesteps(steps)
    ddim = DDIM(process_of(config), steps, 1.0)
    assert list(ddim.times) == stock.timesteps.tolist() and ddim.times[0] == 999

    def network(x, t):
        return 0.5 * x - 0.001 * t

    z = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    x = torch.from_numpy(z)
    for t in stock.timesteps:
        x = stock.step(network(x, int(t)), t, x).prev_sample
    ours = ddim.generate(
        lambda x, t, _: network(x, t[:, None, None, None]), noise_from_array(z[None]), Condition(None, None)
    )
    np.testing.assert_allclose(ours, x, rtol=1e-3, atol=1e-4)
