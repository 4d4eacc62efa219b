"""Score identity Distillation: the method, and nothing else.

Read `train_step` first, beside section 5 of docs/method.md; the sections that docstrings name are those of that page.
What it is made of, one idea a file: `forward_process`, `guidance`, `generator`, `losses`, `gan`, `adam`, `ema`, `keys`
and `state`.
"""

from sid_jax.sid.adam import AdamState, adam, clip, sanitize
from sid_jax.sid.ema import ema_beta, ema_update
from sid_jax.sid.few_step import FewStep, generate, noise_from_array, noise_from_key
from sid_jax.sid.gan import Gan
from sid_jax.sid.guidance import Guidance, Network, drop_prompts, guided, preset
from sid_jax.sid.keys import Purpose, key_for
from sid_jax.sid.losses import Losses, fake_loss, generator_loss, sid_loss, weights
from sid_jax.sid.process import ForwardProcess
from sid_jax.sid.state import Networks, Phase, Settings, TrainState
from sid_jax.sid.train_step import jit_train_step, make_train_step
from sid_jax.sid.vp import VP

__all__ = [
    "VP",
    "AdamState",
    "FewStep",
    "ForwardProcess",
    "Gan",
    "Guidance",
    "Losses",
    "Network",
    "Networks",
    "Phase",
    "Purpose",
    "Settings",
    "TrainState",
    "adam",
    "clip",
    "drop_prompts",
    "ema_beta",
    "ema_update",
    "fake_loss",
    "generate",
    "generator_loss",
    "guided",
    "jit_train_step",
    "key_for",
    "make_train_step",
    "noise_from_array",
    "noise_from_key",
    "preset",
    "sanitize",
    "sid_loss",
    "weights",
]
