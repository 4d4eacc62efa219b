"""Settings that make no sense are refused, by the name of their config key."""

import dataclasses

import pytest
from processes import stable_diffusion

from sid_jax import sid

GOOD = sid.Settings(batch=8, shape=(4, 4, 3))
PROCESS = stable_diffusion()


@pytest.mark.parametrize(
    ("group", "field", "value", "message"),
    [
        (GOOD, "batch", 0, r"^batch: 0 "),
        (GOOD, "accumulation", 0, r"^accumulation: 0 "),
        (GOOD, "accumulation", 3, r"^batch: 8 is not a multiple of accumulation, 3"),
        (GOOD, "shape", (4, 4), r"^resolution: "),
        (sid.Loss(), "weighting", "none", r"^sid\.weighting: 'none' is not one of sid, snr, snr_sqrt, 1_over_sigma, "),
        (sid.Optimizer(), "fake_lr", -1.0, r"^optimizer\.fake_lr: -1\.0 "),
        (sid.Optimizer(), "generator_lr", -1.0, r"^optimizer\.generator_lr: "),
        (sid.Optimizer(), "beta2", 1.0, r"^optimizer\.beta2: 1\.0 is not in \[0, 1\)"),
        (sid.Optimizer(), "eps", 0.0, r"^optimizer\.eps: 0\.0 is not positive"),
        (sid.Optimizer(), "clip_value", 0.0, r"^optimizer\.clip_value: 0\.0 is not positive"),
        (sid.Optimizer(), "clip_fake", 0.0, r"^optimizer\.clip_fake: 0\.0 is not positive"),
        (sid.Optimizer(), "clip_norm", 0.0, r"^optimizer\.clip_norm: 0\.0 is not positive"),
        (sid.Optimizer(), "fake_warmup", -1, r"^optimizer\.fake_warmup: -1 is not at least 0"),
        (sid.Optimizer(), "generator_warmup", -1, r"^optimizer\.generator_warmup: -1 is not at least 0"),
        (sid.Ema(), "half_life", -1.0, r"^ema\.half_life: "),
        (sid.Ema(), "ramp_up", -0.1, r"^ema\.ramp_up: "),
        (sid.Guidance(), "prompt_dropout", 1.5, r"^guidance\.prompt_dropout: 1\.5 is not in \[0, 1\]"),
        (sid.Gan(), "lambda_d", -1.0, r"^gan\.lambda_d: -1\.0 is not at least 0"),
        (sid.FewStep(PROCESS, 1, 625), "num_steps", 0, r"^sid\.num_steps: 0 "),
        (sid.FewStep(PROCESS, 1, 625), "num_steps", 626, r"^sid\.num_steps: "),
        (sid.FewStep(PROCESS, 1, 625), "start", 1000, r"^sid\.t_init: "),
        (sid.FewStep(PROCESS, 1, 625), "noise", "old", r"^sid\.noise: 'old' is not one of fresh, fixed, ddim"),
        (sid.FewStep(PROCESS, 1, 625), "first", "old", r"^sid\.first: 'old' is not one of scaled, unit"),
    ],
)
def test_refused(group, field, value, message):
    with pytest.raises(ValueError, match=message) as error:
        dataclasses.replace(group, **{field: value})
    assert "\n" not in str(error.value)


def test_every_group_has_defaults():
    assert (GOOD.loss, GOOD.guidance, GOOD.gan) == (sid.Loss(), sid.Guidance(), sid.Gan())
    assert (GOOD.optimizer, GOOD.ema) == (sid.Optimizer(), sid.Ema())


@pytest.mark.parametrize("value", [0.0, None])
def test_what_may_be_left_out(value):
    assert sid.Ema(ramp_up=value).ramp_up == value
    assert sid.Optimizer(clip_value=None).clip_value is None


def test_the_limit_of_the_fake_networks_gradient():
    """It has one of its own; without, that of both."""
    assert sid.Optimizer().largest_of_fake is None
    assert sid.Optimizer(clip_value=2.0).largest_of_fake == 2.0
    assert sid.Optimizer(clip_value=2.0, clip_fake=1.0).largest_of_fake == 1.0
