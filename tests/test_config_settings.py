"""Settings are written once: defaults, meanings and values of the schema, as they are read, listed and refused."""

import re

import pytest
from processes import stable_diffusion

import sid_jax.config
from sid_jax.config import SECTIONS, check_settings, default, settings_of
from sid_jax.digits import models
from sid_jax.errors import UserError
from sid_jax.experiment import build
from sid_jax.runtime.cli.config_file import SIZE, flatten
from sid_jax.runtime.cli.settings import Chapter, Setting, bounds, check_values, defaults_of, settings_in
from sid_jax.runtime.cli.settings_help import accepted, listing
from sid_jax.runtime.devices.precision import parse_dtype
from sid_jax.runtime.run.retention import Keep
from sid_jax.sid import EDM

LISTED = {"train": sid_jax.config.chapters(), "pretrain": models.chapters()}
NAMED = [
    (family, key, name)
    for family in SECTIONS
    for key, setting in settings_of(family).items()
    if setting.kind is str and key != "family"
    for name in setting.values
]
"""Each name that a setting takes."""


@pytest.mark.parametrize("command", LISTED)
def test_each_setting_has_a_meaning_of_its_own(command):
    for chapter in LISTED[command]:
        assert chapter.title and chapter.settings
        for setting in chapter.settings.values():
            assert re.fullmatch(r"\S.*[^\s.:;]", setting.meaning)


@pytest.mark.parametrize("command", LISTED)
@pytest.mark.parametrize("width", [60, 80, 110])
def test_the_help_lists_each_within_the_terminal(command, width):
    text = listing(LISTED[command], width)
    assert all(len(line) <= width or " " not in line.strip() for line in text.splitlines())
    joined = " ".join(text.split())
    for chapter in LISTED[command]:
        assert f"{chapter.title}:" in joined
        for key, setting in chapter.settings.items():
            assert f" {key} {setting.meaning} (" in joined
            assert accepted(setting) in joined
        for key, value in chapter.defaults.items():
            assert f"{key} {value}" in joined


def test_how_a_setting_is_shown():
    settings = {
        "a": Setting(float, "one thing", "(0, 1]"),
        "b.c": Setting("x", "another", ("x", "y", "z")),
        "d": Setting(False, "third"),
        "e": Setting("", "fourth"),
        "f": Setting((1, 2), "fifth", "[0, 9]"),
        "g": Setting(8, "sixth", SIZE),
    }
    lines = [re.sub(" +", " ", line) for line in listing([Chapter("Title", settings, {})], 110).splitlines()]
    assert lines[-7:] == [
        "Title:",
        " a one thing (number in (0, 1] or none; default: none)",
        " b.c another (x, y or z; default: x)",
        " d third (true or false; default: false)",
        " e fourth (default: empty)",
        " f fifth (tuple in [0, 9]; default: (1, 2))",
        " g sixth (int or HEIGHTxWIDTH; default: 8)",
    ]


def test_defaults_are_in_their_own_values():
    for family in SECTIONS:
        check_settings(default(family))
    for module, chapter in models.MODELS.values():
        check_values(module.default(), settings_in((models.ANY, chapter)))
        assert set(flatten(module.default())) == set(settings_in((models.ANY, chapter)))


def test_a_family_changes_defaults_and_nothing_else_of_what_is_common():
    common = settings_in(sid_jax.config.COMMON)
    for family, section in SECTIONS.items():
        assert not set(section.settings) & set(common)
        for key, value in section.defaults.items():
            assert type(value) is (int if key == "resolution" else common[key].kind)
            assert value != common[key].default
            assert flatten(default(family))[key] == value
    with pytest.raises(KeyError):
        settings_in((Chapter("", {}, {"nothing": 1}),))


@pytest.mark.parametrize(("family", "key", "name"), NAMED)
def test_each_name_in_the_help_is_known_where_it_is_used(family, key, name):
    config = default(family)
    config.update_from_flattened_dict({key: name})
    check_settings(config)
    build.settings_of(config, (8, 8, 4))
    build.few_step_of(config, EDM() if family == "edm" else stable_diffusion())
    build.matmul_of(config)
    Keep.from_config(config.to_dict())
    for part in ("compute", "teacher"):
        parse_dtype("precision", config.precision[part])
    if key == "sid.times":  # each law is of one family, and has settings of its own
        family = {"uniform": "stable_diffusion", "lognormal_karras": "edm"}[name]
        others, process = default(family), EDM() if family == "edm" else stable_diffusion()
        build.times_of(others, process)
        assert others.sid.times == name
    if name not in ("cudnn", "splash"):  # which are of other platforms
        build.execution_of(config)


@pytest.mark.parametrize(("family", "key"), sorted({(family, key) for family, key, _ in NAMED}))
def test_another_name_is_refused_in_one_line(family, key):
    config = default(family)
    config.update_from_flattened_dict({key: "nonsense"})
    names = list(settings_of(family)[key].values)
    with pytest.raises(UserError, match=rf"^config key {key} is 'nonsense': use {names[0]}.* or {names[-1]}$"):
        check_settings(config)


def test_tuples_are_checked_by_element():
    settings = {"a": Setting((1.0,), "", "[0, 2]"), "b": Setting(("x",), "", ("x", "y"))}
    config = defaults_of(settings)
    check_values(config, settings)
    for key, value in (("a", (1.0, 3.0)), ("b", ("x", "z"))):
        changed = defaults_of(settings)
        changed[key] = value
        with pytest.raises(UserError, match=rf"^config key {key} is "):
            check_values(changed, settings)


def test_a_size_is_one_number_or_two():
    settings = {"a": Setting(8, "", SIZE)}
    for value in (16, (16, 24)):
        config = defaults_of(settings)
        config.a = value
        check_values(config, settings)
    for value in (0, (16,), (16, 9000), (16, 24.0)):
        config = defaults_of(settings)
        config.a = value
        with pytest.raises(UserError, match=r"^config key a is "):
            check_values(config, settings)
    with pytest.raises(TypeError):
        defaults_of(settings).a = "16"


def test_bounds_have_powers():
    assert bounds("[-1, 2^53]") == (-1, 2**53) and bounds("(0, 1e30]") == (0, 1e30)
