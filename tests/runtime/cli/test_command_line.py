import pytest

from sid_jax import config as settings
from sid_jax.errors import UserError
from sid_jax.runtime.cli import command_line


def parser():
    result = command_line.Parser("python -m sid_jax.train", "Distill a teacher.")
    result.add_argument("--workdir", help="the run's folder")
    return result


@pytest.fixture
def config_path(tmp_path):
    file = tmp_path / "run.py"
    file.write_text("from sid_jax.config import default\n\n\ndef get_config():\n    return default()\n")
    return str(file)


def test_flags_and_overrides_in_any_order(config_path):
    argv = ["--config.batch=64", "--workdir", "w", "--config", config_path, "--config.guidance.kappa1", "-1"]
    arguments, config = command_line.parse_with_config(parser(), argv, settings.default())
    assert (arguments.workdir, arguments.config) == ("w", config_path)
    assert (config.batch, config.guidance.kappa1) == (64, -1.0)


def test_overrides_are_split_off_with_either_separator():
    rest, overrides = command_line.split_overrides(
        ["--config", "c.py", "--config.a.b=1=2", "--config.c", "x", "--workdir=w", "--config.d="]
    )
    assert rest == ["--config", "c.py", "--workdir=w"]
    assert overrides == [("a.b", "1=2"), ("c", "x"), ("d", "")]


@pytest.mark.parametrize("argv", [["--config.seed"], ["--config.seed", "--workdir", "w"]])
def test_an_override_without_a_value_is_an_error(argv):
    with pytest.raises(UserError, match=r"^--config.seed lacks a value: write --config.seed=VALUE$"):
        command_line.split_overrides(argv)


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        ([], r"the following arguments are required: --config "),
        (["--config"], r"argument --config: expected one argument "),
        (["--config", "c", "--wokdir", "w"], r"unknown argument --wokdir: did you mean --workdir\? "),
        (["--config", "c", "--work", "w"], r"unknown argument --work"),
        (["--config", "c", "surplus"], r"unknown argument surplus "),
        (["--hepl"], r"unknown argument --hepl: did you mean --help\? "),
        (["--wokdir=w"], r"unknown argument --wokdir: did you mean --workdir\? "),
    ],
)
def test_a_wrong_flag_is_an_error_of_one_line(argv, problem):
    with pytest.raises(UserError, match=problem) as caught:
        command_line.parse_with_config(parser(), argv, settings.default())
    assert str(caught.value).endswith("(python -m sid_jax.train --help lists the flags)")


def test_help_shows_flags_keys_and_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as caught:
        command_line.parse_with_config(parser(), ["--help"], settings.schema_of, settings.chapters())
    assert caught.value.code == 0
    text = capsys.readouterr().out
    flags, keys = ("--workdir", "--config FILE", "--config.KEY=VALUE"), ("optimizer.fake_lr  ", "guidance.kappa1")
    for shown in (*flags, *keys, "1e-06"):
        assert shown in text


@pytest.mark.parametrize("columns", [60, 90, 300])
def test_help_fits_the_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    result = command_line.Parser(
        "python -m sid_jax.train", "A long sentence. " * 20, "Prose that is wrapped. " * 9 + "\n\na list:\n  one\n  two"
    )
    text = result.format_help()
    assert max(map(len, text.splitlines())) <= min(columns, 110)
    assert text.endswith("wrapped.\n\na list:\n  one\n  two\n")


def test_run_returns_0_and_passes_the_arguments():
    seen = []
    assert command_line.run(seen.append, ["a"]) == 0
    assert seen == [["a"]]


def test_run_prints_a_user_error_as_one_line_and_returns_2(capsys):
    def fail(argv):
        raise UserError("the batch\nis odd")

    assert command_line.run(fail, []) == 2
    assert capsys.readouterr().err == "error: the batch is odd\n"


def test_run_returns_130_when_interrupted(capsys):
    def interrupt(argv):
        raise KeyboardInterrupt

    assert command_line.run(interrupt, []) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_run_keeps_the_traceback_of_a_defect():
    def fail(argv):
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        command_line.run(fail, [])
