"""The VP process against diffusers' schedulers, and what it refuses."""

import jax
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from sid_jax.sid import VP

CONFIGS = {
    "stable diffusion": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "defaults": {},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "trained": {"trained_betas": list(np.linspace(0.001, 0.03, 50)), "num_train_timesteps": 50},
    "short": {"beta_schedule": "linear", "beta_start": 0.002, "beta_end": 0.1, "num_train_timesteps": 200},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("scheduler", [DDPMScheduler, DDIMScheduler])
def test_schedule(config, scheduler):
    expected = scheduler(**config).alphas_cumprod.numpy()
    process = VP.from_scheduler(config, 0, len(expected))
    np.testing.assert_allclose(np.asarray(process.alphas_cumprod, np.float32), expected, rtol=1e-6)
    t = np.arange(len(expected))
    np.testing.assert_allclose(process.scale(t), np.sqrt(expected), rtol=1e-6)
    np.testing.assert_allclose(process.sigma(t), np.sqrt(1 - expected), rtol=1e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_conversions(prediction_type):
    config = CONFIGS["stable diffusion"] | {"prediction_type": prediction_type}
    process = VP.from_scheduler(config)
    scheduler = DDPMScheduler(**config, clip_sample=False)
    rng = np.random.default_rng(0)
    x0, noise, output = rng.normal(size=(3, 5, 4, 6, 2)).astype(np.float32)
    t = np.array([20, 100, 500, 700, 979])

    x_t = process.corrupt(x0, t, noise)
    expected = scheduler.add_noise(torch.tensor(x0), torch.tensor(noise), torch.tensor(t))
    np.testing.assert_allclose(x_t, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(process.noise_of(x_t, t, x0), noise, rtol=1e-3, atol=1e-4)

    prediction = process.to_x0(x_t, t, output)
    for i, time in enumerate(t):
        step = scheduler.step(torch.tensor(output[i]), int(time), torch.tensor(np.asarray(x_t[i])))
        np.testing.assert_allclose(prediction[i], step.pred_original_sample, rtol=1e-4, atol=1e-5)


def test_a_perfect_network_has_no_error():
    rng = np.random.default_rng(0)
    x0, noise = rng.normal(size=(2, 3, 4, 4, 2)).astype(np.float32)
    t = np.array([20, 500, 979])
    config = CONFIGS["stable diffusion"]
    eps = VP.from_scheduler(config | {"prediction_type": "epsilon"})
    v = VP.from_scheduler(config | {"prediction_type": "v_prediction"})
    velocity = DDPMScheduler(**config).get_velocity(torch.tensor(x0), torch.tensor(noise), torch.tensor(t)).numpy()
    for process, output in ((eps, noise), (v, velocity)):
        np.testing.assert_allclose(process.fake_error(output, x0, t, noise), 0, atol=1e-10)
        x_t = process.corrupt(x0, t, noise)
        np.testing.assert_allclose(process.to_x0(x_t, t, output), x0, atol=1e-5)
    abar = np.asarray(eps.alphas_cumprod)[t][:, None, None, None]
    snr = abar / (1 - abar)
    np.testing.assert_allclose(
        v.fake_error(velocity + 2, x0, t, noise), np.broadcast_to(4 * snr / (snr + 1), x0.shape), rtol=1e-5
    )


def test_times_are_uniform_in_their_range():
    process = VP.from_scheduler({}, t_min=7, t_max=11)
    for draw in (process.fake_times, process.generator_times):
        t = np.asarray(draw(jax.random.key(0), 4000))
        assert t.dtype == np.int32 and t.shape == (4000,)
        values, counts = np.unique(t, return_counts=True)
        assert list(values) == [7, 8, 9, 10]
        assert counts.min() > 850


@pytest.mark.parametrize(
    ("t_init", "num_steps", "expected"),
    [(625, 1, (625,)), (999, 4, (999, 749, 499, 249)), (999, 3, (999, 666, 333)), (625, 2, (625, 312)), (1, 1, (1,))],
)
def test_step_times(t_init, num_steps, expected):
    assert VP.from_scheduler({}).step_times(t_init, num_steps) == expected


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"beta_schedule": "sigmoid"}, "beta_schedule"),
        ({"prediction_type": "sample"}, "prediction_type"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler"),
        ({"use_flow_sigmas": True}, "flow"),
    ],
)
def test_unsupported_schedulers(config, field):
    with pytest.raises(ValueError, match=field):
        VP.from_scheduler(config)


@pytest.mark.parametrize("times", [(-1, 10), (10, 10), (0, 1001)])
def test_loss_times_outside_the_process(times):
    with pytest.raises(ValueError, match=r"sid\.t_min"):
        VP.from_scheduler({}, *times)


@pytest.mark.parametrize(
    ("t_init", "num_steps", "key"), [(1000, 1, "t_init"), (5, 6, "num_steps"), (5, 0, "num_steps")]
)
def test_steps_outside_the_process(t_init, num_steps, key):
    with pytest.raises(ValueError, match=rf"sid\.{key}"):
        VP.from_scheduler({}).step_times(t_init, num_steps)


@pytest.mark.parametrize("abar", [(), (0.5, 0.0), (1.0,), (float("nan"),)])
def test_signal_outside_the_open_interval(abar):
    with pytest.raises(ValueError, match="alphas_cumprod"):
        VP(abar, t_min=0, t_max=1)
