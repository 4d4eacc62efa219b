"""The configs of published runs: their settings, and an update with small teachers of each family."""

import ast
import json
import math
from pathlib import Path

import pytest

import sid_jax.config
from sid_jax import train
from sid_jax.experiment import build
from sid_jax.runtime.cli import config_file

# Section 7 of docs/method.md.
RUNS = {
    "sd15_1step": {"sid.num_steps": 1, "sid.t_init": 625, "sid.loss_scale": 1, "batch": 512, "resolution": 512},
    "sd15_2step": {"sid.num_steps": 2, "sid.t_init": 999, "sid.loss_scale": 100, "batch": 512, "resolution": 512},
    "sd15_4step": {"sid.num_steps": 4, "sid.t_init": 999, "sid.loss_scale": 100, "batch": 512, "resolution": 512},
    "sd21base_1step": {"sid.num_steps": 1, "sid.t_init": 625, "sid.loss_scale": 1, "batch": 512, "resolution": 512},
    "sdxl_1step": {"sid.num_steps": 1, "sid.t_init": 625, "sid.loss_scale": 1, "batch": 256, "resolution": 1024},
    "sdxl_2step": {"sid.num_steps": 2, "sid.t_init": 999, "sid.loss_scale": 100, "batch": 256, "resolution": 1024},
    "sdxl_4step": {"sid.num_steps": 4, "sid.t_init": 999, "sid.loss_scale": 100, "batch": 256, "resolution": 1024},
}
ALL = {
    "images": 10_000_000,
    "sid.alpha": 1,
    "guidance.strategy": "lsg",
    "guidance.scale": 1.5,
    "optimizer.fake_lr": 1e-6,
    "optimizer.generator_lr": 1e-6,
    "optimizer.eps": 1e-6,
    "ema.half_life": 50_000,
    "precision.compute": "bfloat16",
    "precision.teacher": "bfloat16",
}
SMALL = {"resolution": 16, "batch": 2, "images": 2, "sample_images": 1}


def family(name, pipelines):
    return pipelines["sdxl" if name.startswith("sdxl") else "sd"]


@pytest.mark.parametrize("name", RUNS)
def test_settings_are_the_published_ones(name):
    settings = config_file.flatten(config_file.load(f"configs/{name}.py", sid_jax.config.default()))
    assert {key: settings[key] for key in ALL | RUNS[name]} == ALL | RUNS[name]


@pytest.mark.parametrize("name", RUNS)
def test_the_docstring_says_command_memory_cost_and_result(name):
    text = ast.get_docstring(ast.parse(Path(f"configs/{name}.py").read_text()))
    assert f"python -m sid_jax.train --config configs/{name}.py" in text
    assert all(f"{title}: " in text for title in ("Teacher", "Memory", "Cost", "Published"))


@pytest.mark.parametrize("name", RUNS)
def test_a_teacher_of_the_family_takes_them(name, pipelines):
    pairs = [("teacher", str(family(name, pipelines))), *((key, str(value)) for key, value in SMALL.items())]
    config = config_file.load(f"configs/{name}.py", sid_jax.config.default(), pairs)
    teacher = build.open_teacher(config)
    assert build.settings_of(config, teacher.space.shape(config.resolution)).batch == SMALL["batch"]
    assert build.few_step_of(config, teacher.process).num_steps == RUNS[name]["sid.num_steps"]
    assert build.times_of(config, teacher.process)
    assert len(teacher.conditions.parts) == (2 if name.startswith("sdxl") else 1)


@pytest.mark.parametrize(
    "name",
    ["sdxl_1step", *(pytest.param(name, marks=pytest.mark.slow) for name in RUNS if name != "sdxl_1step")],
)
def test_an_update(name, pipelines, tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    train.main([
        f"--config=configs/{name}.py", f"--workdir={tmp_path / 'run'}", f"--config.teacher={family(name, pipelines)}",
        f"--config.prompts={tmp_path / 'prompts.txt'}", *(f"--config.{key}={value}" for key, value in SMALL.items()),
    ])  # fmt: skip
    (line,) = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    values = json.loads(line)
    assert all(math.isfinite(values[key]) for key in ("fake_loss", "generator_loss"))
    assert values["dropped_fake"] == values["dropped_generator"] == values["nonfinite_grads"] == 0
