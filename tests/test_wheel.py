"""The wheel, in an empty virtual environment and away from the checkout: what a user has who installs the package.

Needs the package index, from which pip installs what the wheel requires.
"""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHORT = ["--config.images=256", "--config.log_every=2", "--config.sample_images=4", "--config.evaluate.samples=100"]
SHORT += ["--config.evaluate.teacher_steps=2"]
RUN = ["train", "--config", "digits_1step", *SHORT]
IMPORT = """
import os, sys, time
before = set(os.environ.items())
import sid_jax
assert not set(os.environ.items()) ^ before
print(sid_jax.__version__, os.path.dirname(sid_jax.__file__))
import jax
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT], check=True
    )
    (file,) = folder.glob("sid_jax-*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A function that runs a program of the environment in another folder; and that folder."""
    home, folder = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    subprocess.run([home / "bin/pip", "install", "--quiet", wheel], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "JAX_"))}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "PATH": f"{home / 'bin'}:/usr/bin:/bin"}

    def run(program, *arguments, code=0):
        done = subprocess.run(
            [home / "bin" / program, *arguments], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    run.folder = folder
    return run


@pytest.fixture(scope="module")
def trained(installed):
    """What the training said."""
    return installed("sid-jax", *RUN).stderr


@pytest.mark.slow
def test_the_wheel_has_configs_data_types_and_licences(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"sid_jax/configs/{config.name}" for config in (ROOT / "configs").glob("*.py")} < names
    assets = [
        file for file in (ROOT / "sid_jax/assets").rglob("*") if file.is_file() and "__pycache__" not in file.parts
    ]
    assert {file.relative_to(ROOT).as_posix() for file in assets} < names
    assert {"sid_jax/py.typed", "sid_jax/planning/gpus/h100_sxm.txtpb", "sid_jax/families/published/sd15.json"} < names
    assert {name.rpartition("/")[2] for name in names if "/licenses/" in name} == {"LICENSE", "NOTICE"}
    assert not [name for name in names if not name.startswith(("sid_jax/", "sid_jax-")) or "__pycache__" in name]


@pytest.mark.slow
def test_nothing_of_pytorch_is_installed(installed):
    listed = installed("pip", "list", "--format=freeze").stdout.lower()
    assert "jax==" in listed and not re.search(r"^(torch|tensorflow|diffusers)\b", listed, re.MULTILINE)


@pytest.mark.slow
def test_importing_it_starts_no_backend_and_changes_nothing(installed):
    version, place = installed("python", "-c", IMPORT).stdout.split()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert "site-packages" in place and not Path(place).is_relative_to(ROOT)


@pytest.mark.slow
def test_the_script_lists_its_commands(installed):
    assert installed("sid-jax").stdout.startswith("usage: sid-jax COMMAND [FLAGS]\n")
    assert installed("python", "-m", "sid_jax").stdout.startswith("usage: python -m sid_jax COMMAND [FLAGS]\n")
    assert "did you mean train?" in installed("sid-jax", "trian", code=2).stderr


@pytest.mark.slow
def test_every_command_has_its_help(installed):
    """Of `plan`, for one, in the form in which it was called."""
    listed = re.findall(r"^  (\w+) ", installed("sid-jax").stdout, re.MULTILINE)
    assert len(listed) >= 9
    for command in listed:
        assert installed("sid-jax", command, "--help").stdout.startswith(f"usage: sid-jax {command} ")
    assert installed("python", "-m", "sid_jax.plan", "--help").stdout.startswith("usage: python -m sid_jax.plan ")


@pytest.mark.slow
def test_it_trains(installed, trained):
    run = installed.folder / "runs/digits_1step"
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]
    assert {"table.txt", "table.json", "side_by_side.png"} <= {file.name for file in run.iterdir()}
    assert "WARNING:" not in trained and "PyTorch" not in trained and "Traceback" not in trained


@pytest.mark.slow
def test_it_goes_on_from_where_it_was(installed, trained):
    assert "done: 4 updates" in installed("sid-jax", *RUN).stderr


@pytest.mark.slow
def test_it_samples_exports_and_measures(installed, trained):
    run = ["--run", "runs/digits_1step"]
    installed("sid-jax", "sample", *run, "--prompts", "a handwritten seven", "--n", "2", "--out", "pictures")
    assert (installed.folder / "pictures/0001.png").is_file()
    installed("sid-jax", "export", *run, "--out", "exported")
    assert (installed.folder / "exported/README.md").read_text().startswith("---\n")
    installed("sid-jax", "evaluate", "--model", "exported", "--samples", "100", "--json", "table.json")
    table = json.loads((installed.folder / "table.json").read_text())
    assert table["samples"] == 100 and table["student"]["steps"] == 1


@pytest.mark.slow
def test_an_unknown_config_is_one_line_that_lists_near_ones(installed):
    error = installed("sid-jax", "train", "--config", "digits", code=2).stderr
    assert error.startswith("error: config digits does not exist: did you mean digits_1step or digits_1step_gan or ")
    assert error.count("\n") == 1
