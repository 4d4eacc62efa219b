"""Score identity Distillation: the method, and nothing else.

Read `train_step` first, beside section 5 of docs/method.md; the sections that docstrings name are those of that page,
and README.md beside this file walks through one iteration. What it is made of, one idea a file: `process`, `vp`, `edm`,
`times`, `guidance`, `few_step`, `losses`, `gan`, `adam`, `ema`, `keys`, `settings`, `state` and `barrier`.
"""

from sid_jax.sid.adam import adam, clip, clip_norm, sanitize, warmed_up
from sid_jax.sid.edm import EDM
from sid_jax.sid.ema import ema_beta, ema_update
from sid_jax.sid.few_step import FIRST_INPUTS, NOISE_TYPES, FewStep, Noise, noise_from_array, noise_from_key
from sid_jax.sid.gan import GAN_FORMS, Gan, Judged
from sid_jax.sid.guidance import (
    DEFAULT_SCALE,
    STRATEGIES,
    Condition,
    Denoiser,
    Discriminator,
    Guidance,
    drop_prompts,
    guided,
    preset,
)
from sid_jax.sid.keys import MOST_SEED, Purpose, key_for, key_of, seed_words
from sid_jax.sid.losses import WEIGHTINGS, Loss, Losses, fake_loss, generator_loss, sid_loss, weights
from sid_jax.sid.process import Draw, Process, Time
from sid_jax.sid.settings import Ema, Optimizer, Phase, Settings
from sid_jax.sid.state import Batch, Frozen, Networks, Real, TrainState
from sid_jax.sid.times import LAWS, LogNormalKarras, Times, Uniform
from sid_jax.sid.train_step import jit_train_step, make_train_step
from sid_jax.sid.vp import VP

__all__ = [
    "DEFAULT_SCALE",
    "EDM",
    "FIRST_INPUTS",
    "GAN_FORMS",
    "LAWS",
    "MOST_SEED",
    "NOISE_TYPES",
    "STRATEGIES",
    "VP",
    "WEIGHTINGS",
    "Batch",
    "Condition",
    "Denoiser",
    "Discriminator",
    "Draw",
    "Ema",
    "FewStep",
    "Frozen",
    "Gan",
    "Guidance",
    "Judged",
    "LogNormalKarras",
    "Loss",
    "Losses",
    "Networks",
    "Noise",
    "Optimizer",
    "Phase",
    "Process",
    "Purpose",
    "Real",
    "Settings",
    "Time",
    "Times",
    "TrainState",
    "Uniform",
    "adam",
    "clip",
    "clip_norm",
    "drop_prompts",
    "ema_beta",
    "ema_update",
    "fake_loss",
    "generator_loss",
    "guided",
    "jit_train_step",
    "key_for",
    "key_of",
    "make_train_step",
    "noise_from_array",
    "noise_from_key",
    "preset",
    "sanitize",
    "seed_words",
    "sid_loss",
    "warmed_up",
    "weights",
]
