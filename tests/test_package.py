"""The package: one version, ranges that admit what is tested, and `sid-jax COMMAND`."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from test_house import FLOORS, modules

import sid_jax
from sid_jax import __main__ as package
from sid_jax import assets
from sid_jax.runtime.cli.program import SCRIPT, as_called

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(*lines):
    """Name to range; of names that are given twice, the last."""
    found = [Requirement(line) for line in lines]
    return {requirement.name.lower().replace("_", "-"): requirement for requirement in found}


def locked(name):
    lines = (ROOT / name).read_text().splitlines()
    return requirements(*(line for line in lines if not line.startswith("-r")))


def called(monkeypatch, capsys, *arguments, as_script=True):
    """The exit code and what is printed of `sid-jax ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", [f"/usr/bin/{SCRIPT}" if as_script else "/x/sid_jax/__main__.py", *arguments])
    code = package.main()
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_the_tested_versions_are_in_the_ranges():
    ranges, lock = requirements(*PROJECT["dependencies"]), locked("requirements.txt")
    assert ranges.keys() == lock.keys()
    for name, requirement in ranges.items():
        (pin,) = lock[name].specifier
        assert pin.operator == "==" and pin.version in requirement.specifier, name
        assert any(limit.operator == "<" for limit in requirement.specifier), f"{name} has no upper end"


def test_the_tested_versions_are_in_the_ranges_of_the_extras():
    extras = PROJECT["optional-dependencies"]
    assert extras.keys() == {"tpu", "cuda", "gcs", "tfds", "wandb", "test", "dev"}
    ranges = requirements(*extras["tfds"], *extras["test"], *extras["dev"])
    del ranges["sid-jax"]
    lock = locked("requirements-test.txt")
    assert ranges.keys() == lock.keys()
    for name, requirement in ranges.items():
        (pin,) = lock[name].specifier
        assert pin.version in requirement.specifier, name
    (jax,) = (line for line in PROJECT["dependencies"] if Requirement(line).name == "jax")
    for name in ("tpu", "cuda"):
        (of_chips,) = extras[name]
        assert Requirement(of_chips).extras and Requirement(of_chips).specifier == Requirement(jax).specifier


def test_what_is_imported_is_required():
    """All that the package imports wherever in it, but for what an extra brings."""
    provided = {"etils": "etils", "PIL": "pillow", "absl": "absl-py", "orbax": "orbax-checkpoint"}
    imported = set()
    for file in modules().values():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
    others = imported - set(sys.stdlib_module_names) - {"sid_jax"}
    required = requirements(*PROJECT["dependencies"]).keys()
    named = {provided.get(name, name).lower().replace("_", "-") for name in others}
    assert named - required == {"tensorflow-datasets", "wandb"}
    assert required - named == set()


def test_the_version_is_said_once():
    assert re.fullmatch(r"\d+\.\d+\.\d+", sid_jax.__version__)
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT
    (newest, *_) = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest == sid_jax.__version__


def test_the_pythons_that_are_tested_are_those_that_the_package_is_for():
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    (versions,) = re.findall(r"^ +python: \[(.*)\]$", workflow, re.MULTILINE)
    tested = versions.replace('"', "").split(", ")
    said = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert tested == said == ["3.11", "3.12", "3.13"]
    assert tested[0] in SpecifierSet(PROJECT["requires-python"])
    assert "run: .ci/run" in workflow


def test_the_papers_are_cited():
    citation = (ROOT / "CITATION.cff").read_text()
    for paper in ("2404.04057", "2410.14919", "2406.01561", "2505.12674"):
        assert f'"arXiv:{paper}"' in citation


def test_every_command_is_listed_with_its_meaning(monkeypatch, capsys):
    assert set(package.COMMANDS) == set(FLOORS[9]) & set(modules())
    for arguments in ((), ("--help",)):
        code, out, _ = called(monkeypatch, capsys, *arguments)
        assert code == 0 and out.startswith("usage: sid-jax COMMAND [FLAGS]\n") and "python -m" not in out
        listed = dict(re.findall(r"^  (\w+) +(.+)$", out, re.MULTILINE))
        assert tuple(listed) == package.COMMANDS
        assert listed["sample"] == "Makes pictures of prompts or classes with a distilled student, or with a teacher."
    assert called(monkeypatch, capsys, as_script=False)[1].startswith("usage: python -m sid_jax COMMAND [FLAGS]\n")


def test_the_version_is_printed(monkeypatch, capsys):
    assert called(monkeypatch, capsys, "--version")[:2] == (0, f"sid_jax {sid_jax.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian"], "error: unknown command trian: did you mean train? (sid-jax --help lists the commands)\n"),
        (["zzz"], "error: unknown command zzz (sid-jax --help lists the commands)\n"),
        (
            ["--config=digits_1step"],
            "error: a command comes before --config, such as train (sid-jax --help lists the commands)\n",
        ),
    ],
)
def test_what_is_no_command(monkeypatch, capsys, arguments, says):
    assert called(monkeypatch, capsys, *arguments) == (2, "", says)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python -m sid_jax.train --config c", "sid-jax train --config c"),
        ("`python -m sid_jax.sample`", "`sid-jax sample`"),
        ("python -m sid_jax --help", "sid-jax --help"),
        ("python -m sid_jax.digits.pairs --out d", "python -m sid_jax.digits.pairs --out d"),
    ],
)
def test_command_lines_are_shown_as_this_process_was_called(monkeypatch, text, expected):
    assert as_called(text) == text
    monkeypatch.setattr(sys, "argv", ["/home/me/.venv/bin/sid-jax", "train"])
    assert as_called(text) == expected


ONE_COMMAND = """
import sys
from sid_jax.__main__ import main
try:
    main()
except SystemExit as end:
    code = end.code
commands = [name for name in %r if f"sid_jax.{name}" in sys.modules]
from jax._src import xla_bridge
print(code, commands, xla_bridge.backends_are_initialized(), file=sys.stderr)
"""


def test_a_command_is_run_as_by_its_module_and_no_other_is_imported():
    program = f"import sys; sys.argv = ['/bin/sid-jax', 'convert', '--help']\n{ONE_COMMAND % (package.COMMANDS,)}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == "0 ['convert'] False\n"
    assert done.stdout.startswith("usage: sid-jax convert ") and "\n  sid-jax convert edm-cifar10" in done.stdout
    assert "python -m sid_jax" not in done.stdout


def test_importing_the_package_imports_next_to_nothing():
    program = (
        "import sys, sid_jax; print(sid_jax.__version__, [n for n in ('jax', 'numpy', 'flax') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"{sid_jax.__version__} []\n"


def test_the_configs_are_those_of_the_checkout():
    assert assets.configs() == ROOT / "configs"
