"""The README.md of an export: its lines run as they are, and neither it nor anything beside it names this machine."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from pipelines import load_pipeline
from safetensors.torch import load_file, save_file

from sid_jax.experiment.export import published
from sid_jax.families.stable_diffusion import teacher_of
from sid_jax.sid import FewStep, Guidance
from sid_jax.teachers.teacher import Export

SETTINGS = {"teacher": "org/name", "batch": 8, "resolution": 16, "guidance": {"strategy": "lsg", "scale": 1.5}}
MIXED = {"vae": torch.bfloat16, "text_encoder": torch.float16}
TYPES = {"float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16, "mixed": None}


def write(folder, pipeline, *, steps=1, settings=SETTINGS, guidance=None):
    """The export of a student: its teacher's UNet."""
    teacher = teacher_of(pipeline)
    sampler = FewStep(teacher.process, steps, 999 if steps > 1 else 625)
    teacher.write(folder, Export(pipeline.unet.params, sampler, settings, 3, guidance or Guidance()))
    return (folder / "README.md").read_text(encoding="utf-8")


def store_as(folder, dtype):
    """Stores the networks of a pipeline in a type, or in several."""
    for file in folder.glob("*/*.safetensors"):
        of_file = MIXED.get(file.parent.name, torch.float32) if dtype is None else dtype
        save_file({name: tensor.to(of_file) for name, tensor in load_file(file).items()}, file, {"format": "pt"})


@pytest.mark.parametrize(
    ("kind", "stored"), [("sd", "float16"), ("sd", "mixed"), ("sdxl", "bfloat16"), ("sdxl", "float64")]
)
def test_the_lines_run_as_they_are(request, tmp_path, monkeypatch, kind, stored):
    """Of teachers that store their networks in any type, with a stock scheduler and with ours."""
    folder = request.getfixturevalue(kind)
    store_as(folder, TYPES[stored])
    pipeline = load_pipeline(folder, parts=("unet",))
    for steps in (1, 4):
        out = tmp_path / f"{steps} steps"
        (lines,) = re.findall(r"```python\n(.*?)```", write(out, pipeline, steps=steps), re.DOTALL)
        monkeypatch.chdir(out)
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.delitem(sys.modules, "sid_scheduler", raising=False)
        names = {}
        exec(compile(lines, "README.md", "exec"), names)
        assert names["image"].size == (16, 16)
        assert type(names["pipe"].scheduler).__name__ == ("EulerDiscreteScheduler" if steps == 1 else "SiDScheduler")
        assert {part.dtype for part in names["pipe"].components.values() if isinstance(part, torch.nn.Module)} == {
            torch.float32
        }
        unet = load_file(out / "unet/diffusion_pytorch_model.safetensors")
        assert {tensor.dtype for tensor in unet.values()} == {torch.float32}
        monkeypatch.delitem(sys.modules, "sid_scheduler", raising=False)


@pytest.fixture
def pipeline(pipelines):
    return load_pipeline(pipelines["sd"], parts=("unet",))


def test_a_teacher_on_the_hub_is_the_base_model(pipeline, tmp_path):
    card = write(tmp_path / "out", pipeline)
    head = card.split("---\n")[1].splitlines()
    assert {"library_name: diffusers", "pipeline_tag: text-to-image", "base_model: org/name"} <= set(head)
    assert {"base_model_relation: finetune", "tags:", "- stable-diffusion", "- distillation", "- sid_jax"} <= set(head)
    assert "# name, distilled into 1 step\n" in card and "from `org/name`" in card


def test_the_licence_of_the_teacher_passes_on(sd, tmp_path):
    (sd / "README.md").write_text("---\nlicense: creativeml-openrail-m\n---\n# T\n")
    card = write(tmp_path / "out", load_pipeline(sd, parts=("unet",)))
    assert card.startswith("---\n") and "\nlicense: creativeml-openrail-m\n" in card.split("---\n")[1]
    assert "under `creativeml-openrail-m`, which passes to what is made of them" in card
    (sd / "README.md").unlink()
    card = write(tmp_path / "other", load_pipeline(sd, parts=("unet",)))
    assert "license" not in card.split("---\n")[1] and "do not say under which licence its weights are" in card


def test_scales_without_a_strategy_are_not_said_to_be_of_one(pipeline, tmp_path):
    settings = SETTINGS | {"guidance": {"strategy": "none"}}
    card = write(tmp_path / "out", pipeline, settings=settings, guidance=Guidance(kappa4=1.17))
    assert "guided in training (kappa1 is 1, kappa2 is 1, kappa3 is 1, kappa4 is 1.17)" in card and "none" not in card


@pytest.mark.parametrize("name", ["teacher", "a`b\nc", "bundled:digits"])
def test_a_teacher_that_is_not_on_the_hub_is_no_base_model(pipeline, tmp_path, name):
    card = write(tmp_path / "out", pipeline, settings=SETTINGS | {"teacher": name}, steps=4)
    title = "digits" if name == "bundled:digits" else "Stable Diffusion"
    assert f"# {title}, distilled into 4 steps\n" in card and "base_model" not in card
    assert f"`{name}`" in card or "`a_b_c`" in card


@pytest.mark.parametrize(
    ("guidance", "expected"),
    [
        (Guidance(), "without guidance"),
        (Guidance(kappa4=1.17), "kappa1 is 1, kappa2 is 1, kappa3 is 1, kappa4 is 1.17"),
        (Guidance(1.5, 1.5, 1.5, 1.5), "kappa1 to kappa4 are 1.5"),
    ],
)
def test_the_scales_of_guidance_are_said(pipeline, tmp_path, guidance, expected):
    assert expected in write(tmp_path / "out", pipeline, guidance=guidance)


def test_no_file_names_a_place_on_this_machine(sd, tmp_path):
    """Neither what the run was given, nor what libraries have written into the teacher's own files."""
    for name in ("unet/config.json", "vae/config.json", "text_encoder/config.json", "tokenizer/tokenizer_config.json"):
        fields = json.loads((sd / name).read_text())
        fields |= {"_name_or_path": str(sd)}
        if name.startswith("tokenizer"):
            fields |= {"name_or_path": "~/models/sd", "special_tokens_map_file": f"{sd}/x.json"}
        (sd / name).write_text(json.dumps(fields))
    settings = published({
        **SETTINGS,
        "teacher": str(sd),
        "revision": "main",
        "prompts": f"{tmp_path}/prompts.txt",
        "text": {"cache": f"{tmp_path}/cache/"},
        "real": {"source": str(tmp_path / "shards" / "*.tar"), "data_dir": "~/tensorflow_datasets"},
        "evaluate": {"metric": "gs://bucket/of/mine/metric"},
        "wandb": {"entity": "me", "project": "p", "name": ""},
    })  # fmt: skip
    out = tmp_path / "out"
    write(out, load_pipeline(sd, parts=("unet",)), settings=settings)
    names = [str(tmp_path), str(Path.home()), "~/", "gs://", "bucket"]
    for file in out.rglob("*"):
        if file.suffix in (".json", ".md", ".py", ".txt") and file.name not in ("vocab.json", "tokenizer.json"):
            assert not [name for name in names if name != "/" and name in file.read_text(encoding="utf-8")], file
    assert (settings["teacher"], settings["real"]["source"]) == ("sd", "*.tar")
    assert json.loads((out / "sid_jax.json").read_text())["config"]["wandb"]["entity"] == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [("bundled:digits", "bundled:digits"), ("org/name", "org/name"), ("C:\\models\\sd", "sd"), ("/models/sd/", "sd")],
)
def test_names_that_mean_the_same_everywhere_are_kept(value, expected):
    found = published({"teacher": value, "revision": "refs/pr/1", "sid": {"t_init": None, "noise": "fresh"}})
    assert found["teacher"] == expected and found["sid"] == {"t_init": None, "noise": "fresh"}


def test_a_relative_folder_is_not_taken_for_a_repository(tmp_path, monkeypatch):
    (tmp_path / "models/sd").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert published({"teacher": "models/sd", "revision": "main"})["teacher"] == "sd"


def test_configurations_without_paths_are_copied_as_they_are(sd, tmp_path):
    write(tmp_path / "out", load_pipeline(sd, parts=("unet",)))
    file = "tokenizer/tokenizer_config.json"
    assert (tmp_path / "out" / file).read_bytes() == (sd / file).read_bytes()
