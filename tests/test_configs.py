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
from sid_jax.sid import LogNormalKarras

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
# The table of EDM's runs there: SiD; what SiDA changes; and how long it is. One row for each data set.
EDM = {
    "edm_cifar10_uncond": {
        "teacher": "edm-cifar10-32x32-uncond-vp.pkl", "resolution": 32, "images": 500_000_000, "batch": 256,
        "sid.alpha": 1.2, "optimizer.fake_lr": 1e-5, "optimizer.generator_beta1": 0, "optimizer.eps": 1e-8,
        "dropout": 0.13, "augment": 0.12, "ema.half_life": 500_000, "precision.compute": "float32",
        "of SiDA": (300_000_000, 32),
    },
    "edm_cifar10_cond": {
        "teacher": "edm-cifar10-32x32-cond-vp.pkl", "resolution": 32, "images": 800_000_000, "batch": 256,
        "sid.alpha": 1.2, "optimizer.fake_lr": 1e-5, "optimizer.generator_beta1": 0, "optimizer.eps": 1e-8,
        "dropout": 0.13, "augment": 0.12, "ema.half_life": 500_000, "precision.compute": "float32",
        "of SiDA": (300_000_000, 32),
    },
    "edm_imagenet64": {
        "teacher": "edm-imagenet-64x64-cond-adm.pkl", "resolution": 64, "images": 1_000_000_000, "batch": 8192,
        "sid.alpha": 1.2, "optimizer.fake_lr": 4e-6, "optimizer.generator_beta1": 0, "optimizer.eps": 1e-6,
        "dropout": 0.10, "augment": 0, "ema.half_life": 2_000_000, "precision.compute": "bfloat16",
        "of SiDA": (300_000_000, 32),
    },
    "edm_ffhq64": {
        "teacher": "edm-ffhq-64x64-uncond-vp.pkl", "resolution": 64, "images": 500_000_000, "batch": 512,
        "sid.alpha": 1.2, "optimizer.fake_lr": 1e-5, "optimizer.generator_beta1": 0.9, "optimizer.eps": 1e-6,
        "dropout": 0.05, "augment": 0.15, "ema.half_life": 500_000, "precision.compute": "bfloat16",
        "of SiDA": (200_000_000, 64),
    },
    "edm_afhqv2": {
        "teacher": "edm-afhqv2-64x64-uncond-vp.pkl", "resolution": 64, "images": 500_000_000, "batch": 512,
        "sid.alpha": 1.0, "optimizer.fake_lr": 5e-6, "optimizer.generator_beta1": 0, "optimizer.eps": 1e-6,
        "dropout": 0.05, "augment": 0.15, "ema.half_life": 500_000, "precision.compute": "bfloat16",
        "of SiDA": (200_000_000, 64),
    },
}  # fmt: skip
OF_EDM = {
    "sid.num_steps": 1, "sid.t_init": None, "sid.times": "lognormal_karras", "sid.p_mean": -1.2, "sid.p_std": 1.2,
    "sid.u_max": 0.8, "sid.sigma_min": 0.002, "sid.sigma_max": 80, "sid.rho": 7, "sid.loss_scale": 100,
    "sid.weighting": "sid", "optimizer.beta2": 0.999, "optimizer.clip_value": None, "ema.ramp_up": 0.05,
    "precision.teacher": "float32", "precision.matmul": "highest",
}  # fmt: skip
FORMS = ("sid", "sida", "sid2a")
# Half as many passes to compile, and each in half the time; and the batch in two parts, as few devices take it.
QUICK = [
    "--config.guidance.strategy=none", "--config.precision.compute=float32", "--config.precision.teacher=float32",
    "--config.accumulation=2",
]  # fmt: skip
SMALL = {"resolution": 16, "batch": 2, "images": 2, "sample_images": 1, "evaluate.pictures": 0}


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
    ("name", "more"),
    [
        ("sdxl_1step", QUICK),
        *(pytest.param(name, [], marks=pytest.mark.slow) for name in RUNS),
    ],
)
def test_an_update(name, more, pipelines, tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    train.main([
        f"--config=configs/{name}.py", f"--workdir={tmp_path / 'run'}", f"--config.teacher={family(name, pipelines)}",
        f"--config.prompts={tmp_path / 'prompts.txt'}", *(f"--config.{key}={value}" for key, value in SMALL.items()),
        *more,
    ])  # fmt: skip
    (line,) = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    values = json.loads(line)
    assert all(math.isfinite(values[key]) for key in ("fake_loss", "generator_loss"))
    assert values["dropped_fake"] == values["dropped_generator"] == values["nonfinite_grads"] == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("data", EDM)
def test_settings_of_edm_are_the_published_ones(data, form):
    settings = config_file.flatten(config_file.load(f"configs/{data}_{form}.py", sid_jax.config.schema_of))
    expected = OF_EDM | EDM[data] | {"optimizer.generator_lr": EDM[data]["optimizer.fake_lr"], "student": ""}
    images, group = expected.pop("of SiDA")
    gan = {"gan.lambda_d": 0, "gan.lambda_g": 0, "gan.group": None, "optimizer.clip_fake": None}
    if form != "sid":
        gan = {"gan.lambda_d": 1, "gan.lambda_g": 0.01, "gan.group": group, "optimizer.clip_fake": 1}
        gan |= {"gan.freeze": 100_000, "gan.start": 200_000, "gan.form": "sida"}
        expected |= {"images": images, "sid.alpha": 1, "optimizer.generator_beta1": 0}
    if form == "sid2a":
        expected |= {"images": 100_000_000, "student": f"runs/{data}_sid"}
    assert {key: settings[key] for key in expected | gan} == expected | gan


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("data", EDM)
def test_the_docstrings_of_edm_say_command_memory_cost_and_result(data, form):
    text = ast.get_docstring(ast.parse(Path(f"configs/{data}_{form}.py").read_text()))
    assert f"python -m sid_jax.train --config configs/{data}_{form}.py" in text
    assert all(f"{title}: " in text for title in ("Teacher", "Memory", "Cost", "Published"))


@pytest.mark.parametrize("name", ["edm_cifar10_cond_sida", "edm_imagenet64_sid"])
def test_a_teacher_of_edm_takes_them(name):
    """Of the published configuration, without its file."""
    config = config_file.load(f"configs/{name}.py", sid_jax.config.schema_of)
    teacher, _ = build.describe_teacher(config)
    settings = build.settings_of(config, teacher.space.shape(config.resolution))
    assert settings.shape == (config.resolution, config.resolution, 3)
    assert build.few_step_of(config, teacher.process).times == (2.5,)
    assert build.times_of(config, teacher.process) == LogNormalKarras()
    assert build.regularization_of(config, teacher) == (config.augment, True)
    assert teacher.denoiser.matmul == "highest" and teacher.denoiser.config.network.dropout == config.dropout
    assert settings.phase(390).generator is (name == "edm_imagenet64_sid") and settings.phase(391).generator


def test_what_differs_from_the_defaults():
    config = config_file.load("configs/digits_1step.py", sid_jax.config.schema_of, [("seed", "0"), ("batch", "8")])
    changes = sid_jax.config.changes(json.loads(config_file.to_json(config)))
    assert ("batch", 8, 512) in changes and ("guidance.kappa4", 1.17, None) in changes
    assert not {"seed", "family", "sid.num_steps", "wandb.project"} & {key for key, *_ in changes}
