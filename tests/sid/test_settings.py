"""Settings that make no sense are refused, by the name of their config key."""

import dataclasses

import pytest

from sid_jax import sid

GOOD = sid.Settings(batch=8, latent_shape=(4, 4, 3))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("batch", 0, r"^batch: 0 "),
        ("accumulation", 0, r"^accumulation: 0 "),
        ("accumulation", 3, r"^batch: 8 is not a multiple of accumulation, 3"),
        ("latent_shape", (4, 4), r"^resolution: "),
        ("num_steps", 0, r"^sid\.num_steps: 0 "),
        ("noise", "old", r"^sid\.noise: 'old' is not one of fresh, fixed, ddim"),
        ("weighting", "none", r"^sid\.weighting: 'none' is not one of sid, snr, snr_sqrt, 1_over_sigma, "),
        ("lr", -1.0, r"^optimizer\.lr: -1\.0 "),
        ("glr", -1.0, r"^optimizer\.glr: "),
        ("beta2", 1.0, r"^optimizer\.beta2: 1\.0 is not in \[0, 1\)"),
        ("eps", 0.0, r"^optimizer\.eps: 0\.0 is not positive"),
        ("clip_value", 0.0, r"^optimizer\.clip_value: 0\.0 is not positive"),
        ("half_life", -1.0, r"^ema\.half_life: "),
        ("ramp_up", -0.1, r"^ema\.ramp_up: "),
    ],
)
def test_refused(field, value, message):
    with pytest.raises(ValueError, match=message) as error:
        dataclasses.replace(GOOD, **{field: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("field", "value", "key"), [("t_init", 1000, "t_init"), ("num_steps", 626, "num_steps")])
def test_refused_with_the_process(field, value, key):
    settings = dataclasses.replace(GOOD, **{field: value})
    with pytest.raises(ValueError, match=rf"^sid\.{key}: "):
        sid.make_train_step(sid.Networks(lambda params, x, t, c: x), sid.VP.from_scheduler({}), settings)
