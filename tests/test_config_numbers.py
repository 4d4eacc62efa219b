"""Numbers of a config: each has a range, and what is outside, or no number, is one line that names it."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

import sid_jax.config
from sid_jax.config import SECTIONS, check_settings, default, settings_of
from sid_jax.errors import UserError
from sid_jax.runtime.cli import config_file
from sid_jax.runtime.cli.settings import bounds, check_values


def ranges_of(settings):
    return {key: setting.values for key, setting in settings.items() if isinstance(setting.values, str)}


ALL = ranges_of(settings_of("stable_diffusion"))
OF_EDM = ranges_of(SECTIONS["edm"].settings)


def numeric_keys(family="stable_diffusion"):
    """Keys of numbers with their types; those whose default is None have theirs in the schema."""
    found = {}
    for key in config_file.flatten(default(family)):
        group, _, leaf = key.rpartition(".")
        kind = (default(family)[group] if group else default(family)).get_type(leaf)
        if kind in (int, float):
            found[key] = kind
    return found


def changed(key, value, family="stable_diffusion"):
    config = default(family)
    config.update_from_flattened_dict({key: value})
    return config


def test_every_number_has_a_range():
    assert set(numeric_keys()) == set(ALL)
    assert set(numeric_keys("edm")) == set(ranges_of(settings_of("edm")))


@pytest.mark.parametrize(
    ("key", "family"), [*((key, "stable_diffusion") for key in sorted(ALL)), *((key, "edm") for key in sorted(OF_EDM))]
)
def test_what_is_outside_is_named(key, family):
    kind = numeric_keys(family)[key]
    below, above = bounds((ALL if family == "stable_diffusion" else OF_EDM)[key])
    wrong = [float("nan"), float("inf"), float("-inf"), 1e39] if kind is float else [int(below) - 1, 2**64, -(2**70)]
    if kind is float:
        wrong += [float(below) - abs(float(below)) - 1, float(above) * 2 + 1]
    for value in wrong:
        with pytest.raises(UserError, match=rf"^config key {key} is "):
            check_settings(changed(key, value, family))


@pytest.mark.parametrize(
    ("key", "value"),
    [("optimizer.fake_lr", 1e30), ("guidance.kappa1", -1.0), ("seed", 2**64 - 1), ("optimizer.clip_value", None)],
)
def test_ends_of_ranges_are_in_them(key, value):
    check_settings(changed(key, value))


@pytest.mark.parametrize(
    ("saved", "says"),
    [
        ('{"family": []}', "config key family is \\[\\]"),
        ('{"batch": true}', "key batch takes an int, not True"),
        ('{"sid": {"alpha": true}}', "key sid.alpha takes a float, not True"),
        (f'{{"optimizer": {{"eps": 1{"0" * 400}}}}}', "key optimizer.eps takes a float, not 1000"),
    ],
)
def test_a_saved_config_has_them_in_their_types(saved, says):
    with pytest.raises(UserError, match=says):
        config_file.from_json(saved, sid_jax.config.schema_of)


def test_numbers_of_another_schema_are_finite():
    config = ConfigDict({"steps": 5, "guidance": (1.0, float("nan"))})
    with pytest.raises(UserError, match=r"^config key guidance is nan: use a finite number"):
        check_values(config, {})


def test_floats_are_what_they_are_in_float32():
    with pytest.raises(UserError, match=r"optimizer\.beta2 is 0\.99999999: use a number in \[0, 1\)"):
        check_settings(changed("optimizer.beta2", 0.99999999))


CONFIGS = sorted({*Path("configs").glob("*_*step*.py"), *Path("configs").glob("edm_*_si*.py")})


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_the_configs_are_in_range(file):
    check_settings(config_file.load(str(file), sid_jax.config.schema_of))
