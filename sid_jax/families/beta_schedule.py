"""What a diffusers `scheduler_config.json` says of the forward process that the networks were trained on.

The class must be one whose process is a schedule of betas, and every field of the file is accounted for, as in the
networks' configurations (`models/json_config.py`): it says what the process is (`_FIELDS`), or it must have the value
under which the process is the one here (`_REQUIRED`), or it is about sampling alone (`_INERT`). Anything else is an
error that names the field or the class, so that no teacher is distilled along another process than its own.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sid_jax.sid.vp import PREDICTION_TYPES

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
MOST_TIMES = 100_000  # a scheduler's; published ones have 1,000


class _Class(NamedTuple):
    """What the fields are that the file leaves out, and whether the class reads `rescale_betas_zero_snr`."""

    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    rescales: bool = False


_PLAIN, _RESCALES = _Class(), _Class(rescales=True)
_LATENT = _Class(0.00085, 0.012, "linear")
_CONSISTENCY = _Class(0.00085, 0.012, "scaled_linear", rescales=True)
_CLASSES = {
    "DDIMInverseScheduler": _RESCALES,
    "DDIMParallelScheduler": _RESCALES,
    "DDIMScheduler": _RESCALES,
    "DDPMParallelScheduler": _RESCALES,
    "DDPMScheduler": _RESCALES,
    "DEISMultistepScheduler": _PLAIN,
    "DPMSolverMultistepInverseScheduler": _PLAIN,
    "DPMSolverMultistepScheduler": _RESCALES,
    "DPMSolverSDEScheduler": _LATENT,
    "DPMSolverSinglestepScheduler": _PLAIN,
    "EulerAncestralDiscreteScheduler": _RESCALES,
    "EulerDiscreteScheduler": _RESCALES,
    "HeunDiscreteScheduler": _LATENT,
    "KDPM2AncestralDiscreteScheduler": _LATENT,
    "KDPM2DiscreteScheduler": _LATENT,
    "LCMScheduler": _CONSISTENCY,
    "LMSDiscreteScheduler": _PLAIN,
    "PNDMScheduler": _PLAIN,
    "SASolverScheduler": _PLAIN,
    "TCDScheduler": _CONSISTENCY,
    "UniPCMultistepScheduler": _RESCALES,
}
_NAMELESS = "DDPMScheduler"  # whose defaults a config has that was written by hand

_FIELDS = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
    "rescale_betas_zero_snr",
)  # fmt: skip
"""What says what the process is."""

_REQUIRED: dict[str, tuple[Any, ...]] = {
    "use_flow_sigmas": (False, None),  # the process of flow matching
    "shift_terminal": (None,),  # of such a process
    "timestep_type": ("discrete",),  # "continuous": the network is told another time
    # "learned", "learned_range": half of what the network gives is a variance.
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
    "predict_epsilon": (True, None),  # of old versions; False: the network predicts x0
}

_INERT = frozenset({
    "algorithm_type", "clip_sample", "clip_sample_range", "corrector_order", "disable_corrector",
    "dynamic_thresholding_ratio", "euler_at_final", "final_sigmas_type", "flow_shift", "interpolation_type",
    "lambda_min_clipped", "lower_order_final", "noise_sampler_seed", "original_inference_steps", "predict_x0",
    "predictor_order", "sample_max_value", "set_alpha_to_one", "sigma_max", "sigma_min", "skip_prk_steps",
    "solver_order", "solver_p", "solver_type", "steps_offset", "tau_func", "tensor_format", "thresholding",
    "time_shift_type", "timestep_scaling", "timestep_spacing", "use_beta_sigmas", "use_dynamic_shifting",
    "use_exponential_sigmas", "use_karras_sigmas", "use_lu_lambdas",
})  # fmt: skip
"""Which times are taken, and how a step is made: teachers are sampled by DDIM here, whatever their scheduler."""


class Schedule(NamedTuple):
    """alphas_cumprod: abar_t of each time, float64. prediction_type: what the networks predict."""

    alphas_cumprod: np.ndarray
    prediction_type: str


def read_schedule(config: Mapping[str, Any]) -> Schedule:
    """The process of a teacher, from the fields of its scheduler; absent ones have the defaults of its class.

    Raises:
      ValueError: one line that names the class or the field: not a schedule of betas, a field that is not known, or a
        value that describes a process or a prediction that is not implemented.
    """
    name = config.get("_class_name", _NAMELESS)
    known = _CLASSES.get(name) if isinstance(name, str) else None
    if known is None:
        raise ValueError(_not_a_schedule(name))
    for field, value in config.items():
        _check_field(field, value)
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTION_TYPES:
        raise ValueError(f"prediction_type {prediction!r} is not one of {', '.join(PREDICTION_TYPES)}")
    abar = np.cumprod(1 - _betas(config, known, prediction), dtype=np.float64)
    rescale = config.get("rescale_betas_zero_snr", False)
    if rescale is not None and not isinstance(rescale, bool):
        raise ValueError(f"rescale_betas_zero_snr {rescale!r} is neither true nor false")
    if rescale:
        if not known.rescales:
            raise ValueError(
                f"rescale_betas_zero_snr is true, and a {name} has no such field: name a scheduler that has it, such "
                "as DDIMScheduler, or remove the field"
            )
        if prediction == "epsilon":
            raise ValueError(
                "rescale_betas_zero_snr is true with prediction_type 'epsilon': at the last time, where no signal is "
                "left, the predicted noise says nothing of the image; v_prediction does"
            )
        abar = _rescaled(abar)
    return Schedule(abar, prediction)


def _not_a_schedule(name: object) -> str:
    wanted = "a scheduler with a schedule of betas is needed, such as DDIMScheduler or EulerDiscreteScheduler"
    if isinstance(name, str) and name.startswith("FlowMatch"):
        return f"_class_name {name}: its process is flow matching; {wanted}"
    if isinstance(name, str) and name.startswith("EDM"):
        return f"_class_name {name}: its process is that of EDM; {wanted}"
    shown = name if isinstance(name, str) and name.isidentifier() and len(name) <= 100 else repr(name)[:100]
    return f"_class_name {shown}: no class whose process is known here; {wanted}"


def _check_field(field: str, value: Any) -> None:
    """Raises ValueError where a field changes the process in a way that is not implemented, or is not known."""
    if field in _REQUIRED:
        allowed = _REQUIRED[field]
        if not any(value is option or (isinstance(option, str) and value == option) for option in allowed):
            options = " or ".join("null" if option is None else repr(option) for option in allowed)
            raise ValueError(f"{field} is {value!r}; only {options} is supported")
    elif field not in _FIELDS and field not in _INERT and not field.startswith("_"):
        raise ValueError(f"field {field!r} (value {value!r}) is not supported")


def _rescaled(abar: np.ndarray) -> np.ndarray:
    """The schedule whose last signal is 0 and whose first is as it was (Lin et al. 2024, arXiv 2305.08891, alg. 1)."""
    root = np.sqrt(abar)
    if len(root) < 2:
        raise ValueError("rescale_betas_zero_snr is true, and there is only one time")
    return np.square((root - root[-1]) * (root[0] / (root[0] - root[-1])))


def _betas(config: Mapping[str, Any], known: _Class, prediction: str) -> np.ndarray:
    """The betas of a diffusers scheduler, rounded to float32 where diffusers rounds."""
    steps = config.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 1 <= steps <= MOST_TIMES:
        raise ValueError(f"num_train_timesteps {steps!r} is not in [1, {MOST_TIMES}]")
    trained = config.get("trained_betas")
    if trained is not None:
        if not isinstance(trained, list) or not all(_is_beta(value) or value == 1 for value in trained):
            raise ValueError("trained_betas is not a list of numbers in (0, 1]")
        # With v prediction the last may be 1, which leaves no signal.
        if any(value == 1 for value in trained[: -1 if prediction == "v_prediction" else None]):
            raise ValueError("trained_betas: 1 leaves no signal; only the last may be 1, and only with v_prediction")
        if len(trained) != steps:
            raise ValueError(f"trained_betas has {len(trained)} numbers, and num_train_timesteps is {steps}")
        return np.asarray(trained, np.float32)
    schedule = config.get("beta_schedule", known.beta_schedule)
    start, end = config.get("beta_start", known.beta_start), config.get("beta_end", known.beta_end)
    for name, value in (("beta_start", start), ("beta_end", end)):
        if not _is_beta(value):
            raise ValueError(f"{name} {value!r} is not in (0, 1)")
    if schedule == "linear":
        return np.linspace(start, end, steps, dtype=np.float32)
    if schedule == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, steps, dtype=np.float32) ** 2
    if schedule == "squaredcos_cap_v2":
        signal = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - signal[1:] / signal[:-1], 0.999).astype(np.float32)
    raise ValueError(f"beta_schedule {schedule!r} is not one of {', '.join(BETA_SCHEDULES)}")


def _is_beta(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < 1
