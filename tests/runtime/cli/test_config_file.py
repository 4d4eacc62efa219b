import json
import re

import pytest
from ml_collections import ConfigDict, config_dict

from sid_jax import config as settings
from sid_jax.errors import UserError
from sid_jax.runtime.cli import config_file


def schema():
    c = ConfigDict()
    c.batch = 8
    c.verbose = False
    c.name = "run"
    c.sizes = (8, 16)
    c.optimizer = ConfigDict()
    c.optimizer.fake_lr = 1e-6
    c.optimizer.generator_lr = 1e-6
    c.optimizer.clip = config_dict.placeholder(float)
    return c


GROUP = "optimizer.clip", "optimizer.fake_lr", "optimizer.generator_lr"


@pytest.fixture
def write(tmp_path):
    """Writes a config file with the given get_config() body, and returns its path."""

    def write_config(body, name="run.py"):
        file = tmp_path / name
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        file.write_text(f"from sid_jax.config import default\n\n\ndef get_config():\n{lines}\n")
        return str(file)

    return write_config


def error_of(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def overridden(key, text):
    config = schema()
    config_file.override(config, schema(), key, text)
    return config_file.flatten(config)[key]


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("batch", "64", 64),
        ("batch", "1_000", 1000),
        ("batch", "-3", -3),
        ("verbose", "true", True),
        ("verbose", "False", False),
        ("name", "a b=c", "a b=c"),
        ("name", "", ""),
        ("name", "3", "3"),
        ("sizes", "(1, 2, 3)", (1, 2, 3)),
        ("sizes", "4", (4,)),
        ("optimizer.fake_lr", "1e-5", 1e-5),
        ("optimizer.fake_lr", "1", 1.0),
        ("optimizer.clip", "0.5", 0.5),
        ("optimizer.clip", "2", 2.0),
        ("optimizer.clip", "none", None),
    ],
)
def test_an_override_has_the_type_of_its_default(key, text, value):
    result = overridden(key, text)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("batch", "1.5", "an int"),
        ("batch", "many", "an int"),
        ("batch", "", "an int"),
        ("batch", "none", "an int"),
        ("verbose", "maybe", "true or false"),
        ("optimizer.fake_lr", "fast", "a float"),
        ("optimizer.fake_lr", "none", "a float"),
        ("optimizer.clip", "x", "a float or none"),
        ("sizes", "(1, 'a')", "a tuple of int"),
        ("sizes", "(1, True)", "a tuple of int"),
        ("sizes", "1.5", "a tuple of int"),
    ],
)
def test_an_ill_typed_override_names_key_type_and_value(key, text, expected):
    assert error_of(overridden, key, text) == f"config key {key} takes {expected}, not {text!r}"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("bacth", "unknown config key bacth: did you mean batch?"),
        ("lr", "unknown config key lr: did you mean optimizer.fake_lr?"),
        ("fake_lr", "unknown config key fake_lr: did you mean optimizer.fake_lr?"),
        ("optimizer.lrr", "unknown config key optimizer.lrr: did you mean optimizer.fake_lr?"),
        ("zzzzzz", "unknown config key zzzzzz: --help lists them"),
        ("optimizer", "config key optimizer is a group: set one of " + ", ".join(GROUP)),
    ],
)
def test_an_unknown_key_is_an_error_with_the_closest_one(key, hint):
    assert error_of(overridden, key, "1") == hint


def test_none_goes_back_to_the_default_of_a_placeholder_that_the_file_has_set():
    config = schema()
    config.optimizer.clip = 3.0
    config_file.override(config, schema(), "optimizer.clip", "None")
    assert config.optimizer.clip is None


def test_load_applies_overrides_in_order_and_locks(write):
    path = write("c = default()\nc.batch = 64\nreturn c")
    config = config_file.load(path, settings.default(), [("optimizer.fake_lr", "1e-4"), ("optimizer.fake_lr", "1e-3")])
    assert (config.batch, config.optimizer.fake_lr) == (64, 1e-3)
    with pytest.raises((AttributeError, KeyError)):
        config.new_key = 1


def test_a_config_may_start_from_another_beside_it(write):
    write("c = default()\nc.batch = 64\nreturn c", name="first_of_two.py")
    path = write("import first_of_two\nc = first_of_two.get_config()\nc.seed = 3\nreturn c")
    config = config_file.load(path, settings.default())
    assert (config.batch, config.seed) == (64, 3)


def test_a_config_that_does_not_exist_names_the_closest_or_all_beside_it(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    near = write("return default()", name="digits_1step.py")
    message = error_of(config_file.load, str(tmp_path / "digits_1stp.py"), settings.default())
    assert message == f"config {tmp_path / 'digits_1stp.py'} does not exist: did you mean {near}?"
    message = error_of(config_file.load, str(tmp_path / "sdxl"), settings.default())
    assert message == f"config {tmp_path / 'sdxl'} does not exist; {tmp_path} has digits_1step.py"
    message = error_of(config_file.load, str(tmp_path), settings.default())
    assert message == f"config {tmp_path} is a folder: name a file in it, one of digits_1step.py"


@pytest.mark.parametrize("name", ["edm_cifar10_cond_sid2a", "edm_cifar10_cond_sid2a.py"])
def test_a_config_that_comes_with_the_package_is_found_by_its_name(name, tmp_path, monkeypatch):
    """Away from the checkout, and what it starts from too; a folder of the same name here does not hide it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edm_cifar10_cond_sid2a").mkdir()
    assert config_file.load(name, settings.schema_of).student == "runs/edm_cifar10_cond_sid"


def test_a_file_of_ones_own_is_taken_before_one_of_the_package(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("c = default()\nc.batch = 24\nreturn c", name="digits_1step.py")
    assert config_file.load("digits_1step.py", settings.default()).batch == 24
    assert config_file.load("digits_1step", settings.default()).batch == 64


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("digits_1stp", "did you mean digits_1step or "),
        ("sd15", "did you mean sd15_1step or sd15_1step_gan or sd15_2step?"),
        ("configs/digits_1step.py", "did you mean digits_1step?"),
        ("/nowhere/sdxl_1step", "did you mean sdxl_1step?"),
    ],
)
def test_an_unknown_name_lists_near_ones_of_the_package(name, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert error_of(config_file.load, name, settings.default()).startswith(f"config {name} does not exist: {hint}")
    (tmp_path / "setup.py").write_text("")
    message = error_of(config_file.load, "zzz", settings.default())
    assert message.startswith("config zzz does not exist; with the package come digits_1step, ")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("raise ValueError('a\\nb')", r" failed at line 5: ValueError: a b$"),
        ("return (", r" failed at line \d: SyntaxError: .*$"),
        ("c = default()\nc.batch = 1.5\nreturn c", r" failed at line 6: TypeError: .*'batch'.*$"),
        ("import no_such_module", r" failed at line 5: ModuleNotFoundError: .*$"),
        ("return 3", r": get_config\(\) returned int, not an ml_collections ConfigDict$"),
        ("c = default()\nc.optimzer = 3\nreturn c", r": unknown config key optimzer: did you mean .*$"),
        ("c = default()\ndel c.seed\nreturn c", r" lacks seed: start get_config\(\) from the defaults$"),
    ],
)
def test_a_config_file_that_fails_says_where(write, body, problem):
    path = write(body)
    assert re.fullmatch(f"config {re.escape(path)}{problem}", error_of(config_file.load, path, settings.default()))


def test_a_config_file_without_get_config(tmp_path):
    file = tmp_path / "empty.py"
    file.write_text("")
    assert error_of(config_file.load, str(file), schema()) == f"config {file} has no get_config() function"


def test_json_is_stable_and_comes_back_with_its_types():
    config = schema()
    config.optimizer.fake_lr = 0.1 + 0.2
    text = config_file.to_json(config)
    assert list(json.loads(text)) == sorted(json.loads(text))
    back = config_file.from_json(text, schema())
    assert config_file.to_json(back) == text
    assert back.to_dict() == config.to_dict()
    assert isinstance(back.sizes, tuple)
    assert config_file.flatten(back)["optimizer.fake_lr"] == 0.1 + 0.2


def test_json_without_a_key_takes_the_default():
    assert config_file.from_json('{"batch": 3}', schema()).optimizer.fake_lr == 1e-6


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "the saved config is not a JSON object"),
        ("3", "the saved config is not a JSON object"),
        ('{"bach": 3}', "saved config: unknown config key bach: did you mean batch?"),
        ('{"batch": 1.5}', "saved config: key batch takes an int, not 1.5"),
    ],
)
def test_json_that_is_no_config_is_an_error(text, problem):
    assert error_of(config_file.from_json, text, schema()).startswith(problem)


@pytest.mark.parametrize(("old", "new"), config_file.RENAMED.items())
def test_every_key_that_was_renamed_is_one_of_train(old, new):
    keys = config_file.flatten(settings.default())
    assert new in keys and old not in keys


def test_an_override_may_have_the_old_name_of_a_key():
    config = schema()
    for key, text in (("lr", "1e-3"), ("fake_lr", "1e-4"), ("generator_lr", "3"), ("glr", "1")):
        config_file.override(config, schema(), f"optimizer.{key}", text)
    assert config.optimizer.to_dict() == {"clip": None, "fake_lr": 1e-4, "generator_lr": 1.0}
    assert error_of(overridden, "optimizer.glr", "fast") == "config key optimizer.glr takes a float, not 'fast'"


def test_a_config_file_may_have_the_old_name_of_a_key_which_then_counts(write, caplog):
    write("c = default()\nc.optimizer.generator_lr = 0.5\nreturn c", name="todays.py")
    path = write("import todays\nc = todays.get_config()\nc.optimizer.lr = 1\nc.optimizer.glr = 0.25\nreturn c.lock()")
    config = config_file.load(path, settings.default(), [("optimizer.lr", "2")])
    assert (config.optimizer.fake_lr, config.optimizer.generator_lr) == (2.0, 0.25)
    assert set(config_file.flatten(config)) == set(config_file.flatten(settings.default()))
    assert config.is_locked
    assert caplog.messages == [
        f"config {path} sets optimizer.glr, which is now called optimizer.generator_lr",
        f"config {path} sets optimizer.lr, which is now called optimizer.fake_lr",
    ]


def test_an_old_name_with_a_value_of_another_type_is_an_error(write):
    path = write("c = default()\nc.optimizer.lr = 'fast'\nreturn c")
    message = error_of(config_file.load, path, settings.default())
    assert message == f"config {path}: key optimizer.lr takes a float, not 'fast'"


def test_json_may_have_the_old_name_of_a_key_and_is_written_with_the_new_one():
    config = schema()
    config.optimizer.fake_lr, config.optimizer.generator_lr = 0.5, 0.25
    text = config_file.to_json(config)
    older = text.replace('"fake_lr"', '"lr"').replace('"generator_lr"', '"glr"')
    assert older != text and config_file.to_json(config_file.from_json(older, schema())) == text


def test_a_schema_may_have_a_key_that_is_called_like_one_that_was_renamed():
    other = ConfigDict({"optimizer": {"lr": 1e-6}})
    assert config_file.from_json('{"optimizer": {"lr": 0.5}}', other).optimizer.lr == 0.5


def test_nested_mappings_are_flattened_as_a_config_is():
    config = settings.default()
    assert config_file.flatten(config.to_dict()) == config_file.flatten(config)


def test_the_schema_of_train_is_overridable_in_every_key():
    defaults = config_file.flatten(settings.default())
    for key, value in defaults.items():
        config = settings.default()
        group, _, leaf = key.rpartition(".")
        number = (config[group] if group else config).get_type(leaf)("7") if value is None else value
        config_file.override(config, settings.default(), key, str(number))
        assert config_file.flatten(config)[key] == number


@pytest.mark.parametrize("body", ["raise SystemExit(0)", "import sys; sys.exit('done')", "return get_config()"])
def test_a_file_that_ends_the_process_or_never_ends_is_an_error(write, body):
    assert " failed at line 5: " in error_of(config_file.load, write(body), settings.default())
