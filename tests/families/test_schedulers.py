"""The process that a scheduler's config describes, against diffusers' schedulers, and what is refused."""

import inspect
import json

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from sid_jax.assets.scheduler.sid_scheduler import SiDScheduler
from sid_jax.families import beta_schedule
from sid_jax.families.published import PUBLISHED, PublishedConfigs
from sid_jax.families.schedulers import process_of, scheduler_of
from sid_jax.sid import Condition, FewStep, noise_from_array

CONFIGS = {
    "stable diffusion": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "defaults": {},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "trained": {"trained_betas": list(np.linspace(0.001, 0.03, 50)), "num_train_timesteps": 50},
    "short": {"beta_schedule": "linear", "beta_start": 0.002, "beta_end": 0.1, "num_train_timesteps": 200},
}


V_ZERO = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


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
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is true with prediction_type 'epsilon'"),
        ({"rescale_betas_zero_snr": 1}, "rescale_betas_zero_snr 1 is neither"),
        (
            {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "num_train_timesteps": 1},
            "only one time",
        ),
        (
            {"_class_name": "PNDMScheduler", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
            "no such",
        ),
        ({"prediction_type": "flow_prediction"}, "prediction_type"),
        ({"timestep_type": "continuous"}, "timestep_type is 'continuous'; only 'discrete' is supported"),
        ({"variance_type": "learned_range"}, "variance_type is 'learned_range'"),
        ({"predict_epsilon": False}, "predict_epsilon is False"),
        ({"snr_shift_scale": 3.0}, "field 'snr_shift_scale' .value 3.0. is not supported"),
        ({"shift": 3.0}, "field 'shift'"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas has 2 numbers, and num_train_timesteps is 1000"),
        ({"trained_betas": [0.1, 1], "num_train_timesteps": 2}, "trained_betas: 1 leaves no signal"),
        ({"_class_name": "EDMEulerScheduler"}, "EDMEulerScheduler: its process is that of EDM"),
        ({"_class_name": "DDIMSchedular"}, "DDIMSchedular: no class whose process is known"),
        ({"_class_name": None}, "_class_name None"),
        ({"_class_name": ["x"]}, "_class_name"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler"),
        ({"use_flow_sigmas": True}, "flow"),
    ],
)
def test_unsupported_schedulers(config, field):
    with pytest.raises(ValueError, match=field):
        process_of(config)


SCHEDULERS = {
    name: scheduler
    for name, scheduler in inspect.getmembers(diffusers, inspect.isclass)
    if issubclass(scheduler, diffusers.SchedulerMixin) and scheduler is not diffusers.SchedulerMixin
}
"""All that the installed diffusers has."""

KNOWN = sorted(SCHEDULERS.keys() & beta_schedule._CLASSES)


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_every_class_of_diffusers_is_read_or_refused_by_name(name):
    """What is read has a process of betas in diffusers too; what else has one is not for pipelines as these."""
    if name in KNOWN:
        process_of({"_class_name": name})
    else:
        with pytest.raises(ValueError, match=rf"_class_name {name}: .* a schedule of betas is needed"):
            process_of({"_class_name": name})


def test_every_class_that_is_read_is_there():
    assert set(beta_schedule._CLASSES) - set(KNOWN) <= {"DPMSolverSDEScheduler"}  # which needs a library of its own


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("config", [{}, CONFIGS["cosine"], CONFIGS["trained"]])
@pytest.mark.parametrize("name", KNOWN)
def test_each_class_has_its_own_defaults(name, config):
    """All fields as diffusers saves them, and none: the process is that of the class."""
    stock = SCHEDULERS[name](**config)
    expected = stock.alphas_cumprod.numpy()
    for fields in (stock.config, config):
        process = process_of({"_class_name": name, **fields})
        np.testing.assert_allclose(np.asarray(process.alphas_cumprod, np.float32), expected, rtol=1e-5, atol=1e-8)


def of(name, **fields):
    return {"_class_name": name, **CONFIGS["stable diffusion"], **fields}


PUBLISHED_FILES = {
    "SD1.5": of(
        "PNDMScheduler", _diffusers_version="0.6.0", num_train_timesteps=1000, set_alpha_to_one=False,
        skip_prk_steps=True, steps_offset=1, trained_betas=None, clip_sample=False,
    ),
    "SD2.1": of(
        "DDIMScheduler", _diffusers_version="0.8.0", clip_sample=False, num_train_timesteps=1000,
        prediction_type="v_prediction", set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1, trained_betas=None,
    ),
    "SDXL": of(
        "EulerDiscreteScheduler", _diffusers_version="0.19.0.dev0", clip_sample=False, interpolation_type="linear",
        num_train_timesteps=1000, prediction_type="epsilon", sample_max_value=1.0, set_alpha_to_one=False,
        skip_prk_steps=True, steps_offset=1, timestep_spacing="leading", trained_betas=None, use_karras_sigmas=False,
    ),
    "sd-turbo": of(
        "EulerDiscreteScheduler", _diffusers_version="0.24.0.dev0", clip_sample=False, interpolation_type="linear",
        num_train_timesteps=1000, prediction_type="epsilon", rescale_betas_zero_snr=False, set_alpha_to_one=False,
        sigma_max=None, sigma_min=None, skip_prk_steps=True, steps_offset=1, timestep_spacing="trailing",
        timestep_type="discrete", trained_betas=None, use_karras_sigmas=False,
    ),
    "LCM": of(
        "LCMScheduler", _diffusers_version="0.22.0.dev0", clip_sample=False, clip_sample_range=1.0,
        dynamic_thresholding_ratio=0.995, num_train_timesteps=1000, original_inference_steps=50,
        prediction_type="epsilon", rescale_betas_zero_snr=False, sample_max_value=1.0, set_alpha_to_one=True,
        steps_offset=1, thresholding=False, timestep_scaling=10.0, timestep_spacing="leading", trained_betas=None,
        interpolation_type="linear", skip_prk_steps=True, use_karras_sigmas=False,
    ),
    "DPM++": of(
        "DPMSolverMultistepScheduler", algorithm_type="dpmsolver++", clip_sample=False,
        dynamic_thresholding_ratio=0.995,
        euler_at_final=False, final_sigmas_type="zero", lambda_min_clipped=float("-inf"), lower_order_final=True,
        num_train_timesteps=1000, prediction_type="epsilon", sample_max_value=1.0, set_alpha_to_one=False,
        skip_prk_steps=True, solver_order=2, solver_type="midpoint", steps_offset=1, thresholding=False,
        timestep_spacing="leading", trained_betas=None, use_karras_sigmas=True, use_lu_lambdas=False,
        variance_type=None,
    ),
    "SD1.4, at first": of("PNDMScheduler", tensor_format="pt", trained_betas=None, num_train_timesteps=1000),
}  # fmt: skip


@pytest.mark.parametrize("config", PUBLISHED_FILES.values(), ids=PUBLISHED_FILES)
def test_published_files_are_read(config):
    process = process_of(config)
    assert process.prediction_type == config.get("prediction_type", "epsilon")
    np.testing.assert_allclose(
        process.alphas_cumprod, DDPMScheduler(**CONFIGS["stable diffusion"]).alphas_cumprod, 1e-5
    )


def test_what_comes_with_the_package_is_read():
    for name in set(PUBLISHED.values()):
        process_of(PublishedConfigs(name).config("scheduler"))


ZERO = {"_class_name": "DDIMScheduler", **CONFIGS["stable diffusion"], **V_ZERO}


@pytest.mark.parametrize("schedule", ["scaled_linear", "linear", "squaredcos_cap_v2"])
def test_zero_terminal_snr(schedule):
    """No signal is left at the last time, and everything that the losses and samplers read is finite there."""
    config = ZERO | {"beta_schedule": schedule}
    expected = np.sqrt(DDIMScheduler(**config).alphas_cumprod.numpy())
    process = process_of(config)
    t = np.arange(1000)
    assert process.zero_terminal_snr and process.scale(t)[-1] == 0 and process.sigma(t)[-1] == 1
    np.testing.assert_allclose(process.scale(t), expected, atol=2e-6)
    rng = np.random.default_rng(0)
    x0, noise, v = rng.normal(size=(3, 1, 2, 2, 4)).astype(np.float32)
    last = np.array([999])
    np.testing.assert_array_equal(process.corrupt(x0, last, noise), noise)
    np.testing.assert_array_equal(process.to_x0(noise, last, v), -v)
    np.testing.assert_array_equal(process.noise_of(noise, last, x0), noise)
    np.testing.assert_array_equal(process.fake_target(x0, last, noise), -x0)
    assert process.fake_weight(last) == 0


def test_trained_betas_may_end_in_one_with_v_prediction():
    config = {"trained_betas": [0.1, 0.5, 1.0], "num_train_timesteps": 3, "prediction_type": "v_prediction"}
    assert process_of(config).alphas_cumprod[-1] == 0


@pytest.mark.parametrize(
    ("steps", "noise", "first", "name"),
    [
        (1, "fresh", "scaled", "DDIMScheduler"),
        (1, "fresh", "unit", "DDIMScheduler"),
        (4, "ddim", "scaled", "DDIMScheduler"),
        (4, "ddim", "unit", "DDIMScheduler"),
        (4, "fresh", "scaled", "LCMScheduler"),
        (3, "ddim", "scaled", None),
        (4, "fixed", "scaled", None),
    ],
)
def test_which_scheduler_is_exact_with_zero_terminal_snr(steps, noise, first, name):
    found = scheduler_of(FewStep(process_of(ZERO), steps, 999, noise, first))
    assert found.exact == (name is not None)
    if name:
        assert found.config["_class_name"] == name
    assert np.isfinite(found.config["trained_betas"]).all()


def test_before_the_last_time_euler_is_exact_with_zero_terminal_snr():
    found = scheduler_of(FewStep(process_of(ZERO), 1, 625))
    assert found.exact and found.config["_class_name"] == "EulerDiscreteScheduler"


@pytest.mark.parametrize("noise", ["fresh", "ddim", "fixed"])
@pytest.mark.parametrize("steps", [1, 4])
def test_pytorch_samples_as_we_do_from_where_no_signal_is_left(monkeypatch, noise, steps):
    """With a stock scheduler where one is exact, else with ours: the same latents of the same noise."""
    sampler = FewStep(process_of(ZERO), steps, 999, noise)
    z = np.random.default_rng(0).normal(size=(steps, 2, 4, 4, 3)).astype(np.float32)

    def network(x, t):
        return 0.5 * x - 0.001 * t

    ours = sampler.generate(
        lambda x, t, _: network(x, t[:, None, None, None]), noise_from_array(z), Condition(None, None)
    )
    found, later = scheduler_of(sampler), iter(torch.from_numpy(z[1:]))
    own = next((json.loads(text) for name, text in found.files.items() if name.endswith("json")), found.config)
    stock = SCHEDULERS.get(own["_class_name"], SiDScheduler).from_config(own)
    monkeypatch.setattr(f"{type(stock).__module__}.randn_tensor", lambda *args, **kwargs: next(later))
    stock.set_timesteps(steps)
    x = torch.from_numpy(z[0]) * stock.init_noise_sigma
    for t in stock.timesteps:
        x = stock.step(network(stock.scale_model_input(x, t), int(t)), t, x).prev_sample
    np.testing.assert_allclose(ours, x, rtol=1e-4, atol=1e-5)
