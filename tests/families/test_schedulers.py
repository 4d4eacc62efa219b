"""The process that a scheduler's config describes, against diffusers' schedulers, and what is refused."""

import numpy as np
import pytest
from diffusers import DDIMScheduler, DDPMScheduler

from sid_jax.families.schedulers import process_of

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
    process = process_of(config)
    np.testing.assert_allclose(np.asarray(process.alphas_cumprod, np.float32), expected, rtol=1e-6)
    t = np.arange(len(expected))
    np.testing.assert_allclose(process.scale(t), np.sqrt(expected), rtol=1e-6)
    np.testing.assert_allclose(process.sigma(t), np.sqrt(1 - expected), rtol=1e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_prediction_type(prediction_type):
    assert process_of({"prediction_type": prediction_type}).prediction_type == prediction_type
    assert process_of({}).prediction_type == "epsilon"


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
        process_of(config)
