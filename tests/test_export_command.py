"""Exported folders: stock PyTorch opens them, and makes the pictures that our sampler makes."""

import fnmatch
import json
import os
import re
import shutil
import sys
from pathlib import Path

import huggingface_hub
import jax
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

import sid_jax.config
from sid_jax import evaluate, export, sample
from sid_jax.errors import UserError
from sid_jax.experiment import build
from sid_jax.experiment.export import write_export
from sid_jax.experiment.networks import networks_of, params_of
from sid_jax.experiment.student import Student, open_model
from sid_jax.families.schedulers import scheduler_of
from sid_jax.runtime.cli import command_line, config_file
from sid_jax.sid import Condition, noise_from_array

PROMPTS = ["a handwritten three", "a handwritten eight", "", "something else"]


@pytest.fixture
def exported(tiny_overrides, tmp_path):
    """A function that exports a student with further overrides, and returns it and the folder."""

    def make(*overrides):
        _, pairs = command_line.split_overrides([*tiny_overrides, *overrides])
        config = config_file.load("configs/digits_1step.py", sid_jax.config.default(), pairs)
        teacher = build.open_teacher(config, "denoiser", "conditions", "space")
        params = jax.tree.map(lambda p: p * 1.1, teacher.denoiser.params)
        student = Student(teacher, params, build.few_step_of(config, teacher.process), config, 3)
        write_export(student, str(tmp_path / "exported"))
        return student, tmp_path / "exported"

    return make


def noises(student):
    shape = student.teacher.space.shape(student.config.resolution)
    return np.random.default_rng(0).normal(size=(student.sampler.num_steps, len(PROMPTS), *shape)).astype(np.float32)


def our_pictures(student, z):
    teacher = student.teacher
    networks = networks_of(teacher, student.config.resolution)
    cond = networks.encode_condition(params_of(teacher.conditions.parts), teacher.conditions.read(PROMPTS))
    latents = student.sampler.generate(
        lambda x, t, c: networks.denoiser(student.params, x, t, c, None), noise_from_array(z), Condition(cond, None)
    )
    return np.asarray(teacher.space.decode(params_of(teacher.space.parts), latents))


def pytorch_pictures(pipe, z, steps):
    pipe.set_progress_bar_config(disable=True)
    z = torch.from_numpy(z).permute(0, 1, 4, 2, 3)
    images = pipe(
        PROMPTS, num_inference_steps=steps, guidance_scale=1.0, height=pipe.vae_scale_factor * z.shape[3],
        width=pipe.vae_scale_factor * z.shape[4], latents=z[0], output_type="np",
    ).images  # fmt: skip
    return images * 255


def own_scheduler(folder, z, monkeypatch):
    """SiDScheduler as the folder's README opens it, with the later draws of noise replaced by those of `z`."""
    monkeypatch.syspath_prepend(str(folder / "sid_scheduler"))
    monkeypatch.delitem(sys.modules, "sid_scheduler", raising=False)
    import sid_scheduler

    later = iter(torch.from_numpy(z[1:]).permute(0, 1, 4, 2, 3))
    monkeypatch.setattr(sid_scheduler, "randn_tensor", lambda *args, **kwargs: next(later))
    return sid_scheduler.SiDScheduler.from_pretrained(folder, subfolder="sid_scheduler")


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("--config.resolution=16x48", "--config.evaluate.metric="),
        ("--config.sid.num_steps=2", "--config.sid.t_init=999", "--config.sid.noise=ddim"),
        ("--config.sid.num_steps=4", "--config.sid.t_init=999", "--config.sid.noise=ddim"),
    ],
    ids=["one step", "not square", "2 steps ddim", "4 steps ddim"],
)
def test_a_stock_scheduler_makes_our_pictures(exported, overrides):
    student, folder = exported(*overrides)
    assert scheduler_of(student.sampler).exact and not (folder / "sid_scheduler").exists()
    z = noises(student)
    theirs = pytorch_pictures(StableDiffusionPipeline.from_pretrained(folder), z, student.sampler.num_steps)
    ours = our_pictures(student, z)
    assert ours.std() > 5
    np.testing.assert_allclose(ours, theirs, atol=1)


@pytest.mark.parametrize("steps", [1, 4])
def test_from_unit_noise_stock_lcm_makes_our_pictures(exported, monkeypatch, steps):
    student, folder = exported(f"--config.sid.num_steps={steps}", "--config.sid.t_init=999", "--config.sid.first=unit")
    assert scheduler_of(student.sampler).exact and not (folder / "sid_scheduler").exists()
    z = noises(student)
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    assert type(pipe.scheduler).__name__ == "LCMScheduler"
    later = iter(torch.from_numpy(z[1:]).permute(0, 1, 4, 2, 3))
    monkeypatch.setattr("diffusers.schedulers.scheduling_lcm.randn_tensor", lambda *args, **kwargs: next(later))
    np.testing.assert_allclose(our_pictures(student, z), pytorch_pictures(pipe, z, steps), atol=1)


@pytest.mark.parametrize(
    ("noise", "steps", "t_init", "first"),
    [
        ("fresh", 4, 999, "scaled"),
        ("fixed", 4, 999, "scaled"),
        ("fresh", 3, 625, "scaled"),
        ("ddim", 3, 600, "scaled"),
        ("fixed", 3, 600, "unit"),
        ("ddim", 2, 999, "unit"),
    ],
)
def test_the_scheduler_in_the_folder_makes_our_pictures(exported, monkeypatch, noise, steps, t_init, first):
    student, folder = exported(
        f"--config.sid.num_steps={steps}", f"--config.sid.t_init={t_init}", f"--config.sid.noise={noise}",
        f"--config.sid.first={first}",
    )  # fmt: skip
    assert not scheduler_of(student.sampler).exact
    z = noises(student)
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.scheduler = own_scheduler(folder, z, monkeypatch)
    np.testing.assert_allclose(our_pictures(student, z), pytorch_pictures(pipe, z, steps), atol=1)


def test_the_teachers_scheduler_does_not_make_them(exported, tiny):
    """The comparison can fail: another scheduler gives other pictures."""
    student, folder = exported()
    z = noises(student)
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    stock = type(pipe.scheduler)
    pipe.scheduler = stock.from_config(pipe.scheduler.config, timestep_spacing="leading")
    assert np.abs(our_pictures(student, z) - pytorch_pictures(pipe, z, 1)).max() > 2


def test_sample_makes_the_same_pictures_of_a_run_and_of_its_export(finished, tmp_path):
    export.main(["--run", str(finished), "--out", str(tmp_path / "exported")])
    common = ["--prompts", "a handwritten three", "--n", "3", "--seed", "5"]
    sample.main(["--run", str(finished), *common, "--out", str(tmp_path / "a")])
    sample.main(["--model", str(tmp_path / "exported"), *common, "--out", str(tmp_path / "b")])
    for name in ("0000.png", "0001.png", "0002.png", "grid.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_of_a_teacher_on_the_hub_only_what_is_copied_is_fetched(finished, tiny, tmp_path, monkeypatch):
    run = shutil.copytree(finished, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"teacher": "org/name"}))

    def snapshot_download(repository, revision, allow_patterns):
        for file in (tiny / "teacher").rglob("*"):
            name = str(file.relative_to(tiny / "teacher"))
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (tmp_path / "cache" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, tmp_path / "cache" / name)
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    files = [str(file.relative_to(tiny / "teacher")) for file in (tiny / "teacher").rglob("*")]
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *_, **__: files)
    export.main(["--run", str(run), "--out", str(tmp_path / "exported")])
    fetched = {str(file.relative_to(tmp_path / "cache")) for file in (tmp_path / "cache").rglob("*.safetensors")}
    assert fetched == {"text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors"}
    assert {str(f.relative_to(tmp_path / "exported")) for f in (tmp_path / "exported").rglob("*.safetensors")} == {
        *fetched, "unet/diffusion_pytorch_model.safetensors",
    }  # fmt: skip


def test_the_folder_says_what_it_is_and_how_to_use_it(exported):
    _, folder = exported()
    about = json.loads((folder / "sid_jax.json").read_text())
    assert about["step"] == 3 and about["config"]["sid"]["t_init"] == 625
    assert "num_inference_steps=1, guidance_scale=1.0" in (folder / "README.md").read_text()


def test_export_twice_replaces_its_own_folder_and_no_other(finished, tmp_path):
    for _ in range(2):
        export.main(["--run", str(finished), "--out", str(tmp_path / "exported")])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep me")
    with pytest.raises(UserError, match="not empty"):
        export.main(["--run", str(finished), "--out", str(tmp_path / "mine")])
    assert (tmp_path / "mine/notes.txt").read_text() == "keep me"


def test_the_unet_is_stored_in_float32(exported):
    student, folder = exported()
    back = open_model(str(folder)).student
    same = jax.tree.map(lambda a, b: np.array_equal(a, b) and b.dtype == np.float32, student.params, back.params)
    assert all(jax.tree.leaves(same))


def test_the_lines_of_the_readme_run(exported, tmp_path, monkeypatch):
    """On what the README says that they are for: an export in one step, and one in four."""
    _, folder = exported("--config.sid.num_steps=4", "--config.sid.t_init=999")
    os.rename(folder, tmp_path / "exported_4step")
    exported()
    readme = Path(__file__).parents[1] / "README.md"
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "sid_scheduler", raising=False)
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
        assert names.pop("image").size == (32, 32)
    assert type(names["pipe"].scheduler).__name__ == "SiDScheduler"
    monkeypatch.delitem(sys.modules, "sid_scheduler", raising=False)


def test_an_export_is_measured_with_what_the_flags_name(exported, tiny, monkeypatch):
    """It names no folder, and a folder of the same name elsewhere is not taken for the one that it was made of."""
    _, folder = exported()
    assert str(tiny) not in (folder / "sid_jax.json").read_text()
    measured = []
    monkeypatch.setattr(evaluate, "measure", lambda student, samples: measured.append(student.config) or 1 / 0)
    flags = {"--teacher": "teacher", "--prompts": "prompts.txt", "--metric": "metric"}
    given = []
    for flag, name in flags.items():
        with pytest.raises(UserError, match=f"names '{name}' and not where it is: {flag} PATH says so"):
            evaluate.main([f"--model={folder}", *given])
        given.append(f"{flag}={tiny / name}")
    with pytest.raises(ZeroDivisionError):
        evaluate.main([f"--model={folder}", *given])
    (config,) = measured
    assert [config.teacher, config.prompts, config.evaluate.metric] == [str(tiny / name) for name in flags.values()]
