"""Our sampler as PyTorch's diffusers runs it: by a stock scheduler where one is exact, else by one of our own."""

import json
from typing import Any, NamedTuple

import numpy as np

from sid_jax import assets
from sid_jax.sid import FewStep

OWN = "sid_scheduler"  # folder, and module, of the scheduler that is shipped where no stock one is exact


class Scheduler(NamedTuple):
    """config: what the pipeline's `scheduler_config.json` says. exact: whether that is our sampler to rounding.
    files: further files of the exported folder, name to content."""

    config: dict[str, Any]
    exact: bool
    files: dict[str, str]


def scheduler_of(sampler: FewStep) -> Scheduler:
    """The scheduler of an exported student.

    Euler's method, in terms of sigma = s / a, is exact for one step, and for the noise type "ddim" where its times are
    ours: its first input is s z_0, and its step to sigma = 0 is the predicted clean latent. Truncating the betas after
    t_init makes t_init the first of its times. Re-noised samplers ("fresh", "fixed") are like LCM's, but that starts
    from unit noise and not from s z_0; there SiDScheduler is shipped beside it.
    """
    process, t_init = sampler.process, sampler.t_init
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
    times = process.step_times(t_init, sampler.num_steps)
    if sampler.num_steps == 1 or (sampler.noise_type == "ddim" and times == _trailing(t_init, sampler.num_steps)):
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
    own = {
        "_class_name": "SiDScheduler",
        "trained_betas": betas,
        "prediction_type": process.prediction_type,
        "t_init": t_init,
        "noise_type": sampler.noise_type,
    }
    with open(assets.resolve(f"bundled:scheduler/{OWN}.py"), encoding="utf-8") as file:
        source = file.read()
    return Scheduler(lcm, False, {f"{OWN}/{OWN}.py": source, f"{OWN}/scheduler_config.json": json.dumps(own, indent=2)})


def _trailing(t_init: int, num_steps: int) -> tuple[int, ...]:
    total = t_init + 1
    return tuple(int(t) for t in np.round(np.arange(total, 0, -total / num_steps)) - 1)
