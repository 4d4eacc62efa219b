"""Schedulers of diffusers: what theirs say of a teacher's process, and our sampler as PyTorch runs it.

An export has a stock scheduler where one is exact, else one of our own beside it.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sid_jax import assets
from sid_jax.families.beta_schedule import read_schedule
from sid_jax.sid import VP, FewStep
from sid_jax.teachers.samplers.ddim import trailing

SID_SCHEDULER = "sid_scheduler"  # folder, and module, of the scheduler that is shipped where no stock one is exact


def process_of(scheduler_config: Mapping[str, Any]) -> VP:
    """The process of a teacher, from the contents of its diffusers `scheduler_config.json`.

    Raises:
      ValueError: the config describes a process that is not variance-preserving with eps or v prediction, or has a
        field that is not known.
    """
    schedule = read_schedule(scheduler_config)
    return VP(tuple(schedule.alphas_cumprod), schedule.prediction_type)


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
    and its times are ours. Where no signal is left at t_init, s is 1, unit noise is s z_0, and Euler's sigma would be
    infinite: DDIM's method takes its place. Everywhere else SiDScheduler is shipped beside the stock one.
    """
    process, steps = sampler.process, sampler.num_steps
    if not isinstance(process, VP) or not isinstance(sampler.start, int):
        raise TypeError("schedulers of diffusers are for VP")
    t_init = sampler.start
    abar = np.asarray(process.alphas_cumprod, np.float64)
    no_signal = abar[t_init] == 0
    scaled, unit = sampler.first == "scaled" or no_signal, sampler.first == "unit" or no_signal
    betas = (1 - abar / np.append(1.0, abar[:-1])).tolist()
    common = {
        "_diffusers_version": "0.42.1",
        "num_train_timesteps": t_init + 1,
        "trained_betas": betas[: t_init + 1],
        "prediction_type": process.prediction_type,
        "steps_offset": 1,  # of no effect here; pipelines warn of any other
    }
    euler = {"_class_name": "EulerDiscreteScheduler", **common, "timestep_spacing": "trailing"}
    if scaled and (steps == 1 or (sampler.noise == "ddim" and sampler.times == trailing(t_init + 1, steps))):
        if not no_signal:
            return Scheduler(euler, True, {})
        if (t_init + 1) % steps == 0:  # else its steps end beside its times
            return Scheduler({**_DDIM, **common}, True, {})
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


_DDIM = {
    "_class_name": "DDIMScheduler",
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,  # the last step ends at the predicted clean latent
}


def _of_lcm(t_init: int, num_steps: int) -> tuple[int, ...]:
    return tuple(t_init - int(k) for k in np.linspace(0, t_init + 1, num_steps, endpoint=False))
