"""Schedulers of diffusers: what theirs say of a teacher's process, and our sampler as PyTorch runs it.

An export has a stock scheduler where one is exact, else one of our own beside it.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sid_jax import assets
from sid_jax.sid import VP, FewStep
from sid_jax.sid.vp import PREDICTION_TYPES

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
MOST_TIMES = 100_000  # a scheduler's; published ones have 1,000
SID_SCHEDULER = "sid_scheduler"  # folder, and module, of the scheduler that is shipped where no stock one is exact


def process_of(scheduler_config: Mapping[str, Any]) -> VP:
    """The process of a teacher, from the contents of its diffusers `scheduler_config.json`.

    Raises:
      ValueError: the config describes a process that is not variance-preserving with eps or v prediction.
    """
    name = scheduler_config.get("_class_name", "")
    if name.startswith("FlowMatch") or scheduler_config.get("use_flow_sigmas"):
        raise ValueError(f"scheduler_config.json: {name} is a flow-matching scheduler; the process here is VP")
    if scheduler_config.get("rescale_betas_zero_snr"):
        raise ValueError(
            "scheduler_config.json: rescale_betas_zero_snr must be false; "
            "at zero terminal signal the network's output does not determine x0"
        )
    prediction = scheduler_config.get("prediction_type", "epsilon")
    if prediction not in PREDICTION_TYPES:
        raise ValueError(
            f"scheduler_config.json: prediction_type {prediction!r} is not one of {', '.join(PREDICTION_TYPES)}"
        )
    return VP(tuple(np.cumprod(1 - _betas(scheduler_config), dtype=np.float64)), prediction)


class Scheduler(NamedTuple):
    """config: what the pipeline's `scheduler_config.json` says. exact: whether that is our sampler to rounding.
    files: further files of the exported folder, name to content."""

    config: dict[str, Any]
    exact: bool
    files: dict[str, str]


def scheduler_of(sampler: FewStep) -> Scheduler:
    """The scheduler of an exported student.

    Euler's method, in terms of sigma = s / a, is exact for one step, and for the noise "ddim" where its times are ours:
    its first input is s z_0, and its step to sigma = 0 is the predicted clean latent. Truncating the betas after t_init
    makes t_init the first of its times. Samplers that add noise again ("fresh", "fixed") are like LCM's, which starts
    from unit noise and not from s z_0: it is exact for fresh noise where the student too was trained from unit noise,
    and its times are ours. Everywhere else SiDScheduler is shipped beside the stock one.
    """
    process, steps = sampler.process, sampler.num_steps
    if not isinstance(process, VP) or not isinstance(sampler.start, int):
        raise TypeError("schedulers of diffusers are for VP")
    t_init, unit = sampler.start, sampler.first == "unit"
    abar = np.asarray(process.alphas_cumprod, np.float64)
    betas = (1 - abar / np.append(1.0, abar[:-1])).tolist()
    common = {
        "_diffusers_version": "0.42.1",
        "num_train_timesteps": t_init + 1,
        "trained_betas": betas[: t_init + 1],
        "prediction_type": process.prediction_type,
        "steps_offset": 1,  # of no effect here; pipelines warn of any other
    }
    euler = {"_class_name": "EulerDiscreteScheduler", **common, "timestep_spacing": "trailing"}
    if not unit and (steps == 1 or (sampler.noise == "ddim" and sampler.times == _trailing(t_init, steps))):
        return Scheduler(euler, True, {})
    # timestep_scaling makes LCM's boundary condition (c_skip, c_out) = (0, 1) at every time.
    lcm = {
        "_class_name": "LCMScheduler",
        **common,
        "original_inference_steps": t_init + 1,
        "timestep_scaling": 1e4,
        "clip_sample": False,
        "set_alpha_to_one": False,
    }
    if unit and (steps == 1 or (sampler.noise == "fresh" and sampler.times == _of_lcm(t_init, steps))):
        return Scheduler(lcm, True, {})
    own = {
        "_class_name": "SiDScheduler",
        "trained_betas": betas,
        "prediction_type": process.prediction_type,
        "t_init": t_init,
        "noise_type": sampler.noise,
        "first": sampler.first,
    }
    with open(assets.resolve(f"bundled:scheduler/{SID_SCHEDULER}.py"), encoding="utf-8") as file:
        source = file.read()
    files = {
        f"{SID_SCHEDULER}/{SID_SCHEDULER}.py": source,
        f"{SID_SCHEDULER}/scheduler_config.json": json.dumps(own, indent=2),
    }
    return Scheduler(lcm, False, files)


def _trailing(t_init: int, num_steps: int) -> tuple[int, ...]:
    total = t_init + 1
    return tuple(int(t) for t in np.round(np.arange(total, 0, -total / num_steps)) - 1)


def _of_lcm(t_init: int, num_steps: int) -> tuple[int, ...]:
    return tuple(t_init - int(k) for k in np.linspace(0, t_init + 1, num_steps, endpoint=False))


def _betas(config: Mapping[str, Any]) -> np.ndarray:
    """The betas of a diffusers scheduler, rounded to float32 where diffusers rounds, with diffusers' defaults."""
    trained = config.get("trained_betas")
    if trained is not None:
        if not isinstance(trained, list) or not all(map(_is_beta, trained)):
            raise ValueError("scheduler_config.json: trained_betas is not a list of numbers in (0, 1)")
        return np.asarray(trained, np.float32)
    schedule = config.get("beta_schedule", "linear")
    steps = config.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 1 <= steps <= MOST_TIMES:
        raise ValueError(f"scheduler_config.json: num_train_timesteps {steps!r} is not in [1, {MOST_TIMES}]")
    start, end = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)
    for name, value in (("beta_start", start), ("beta_end", end)):
        if not _is_beta(value):
            raise ValueError(f"scheduler_config.json: {name} {value!r} is not in (0, 1)")
    if schedule == "linear":
        return np.linspace(start, end, steps, dtype=np.float32)
    if schedule == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, steps, dtype=np.float32) ** 2
    if schedule == "squaredcos_cap_v2":
        signal = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - signal[1:] / signal[:-1], 0.999).astype(np.float32)
    raise ValueError(f"scheduler_config.json: beta_schedule {schedule!r} is not one of {', '.join(BETA_SCHEDULES)}")


def _is_beta(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < 1
