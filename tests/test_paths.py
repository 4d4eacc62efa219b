"""Paths as users write them: what a run keeps of them, and what the commands make of addresses and `~`."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

import sid_jax.config
from sid_jax import encode, evaluate, export, sample
from sid_jax.errors import UserError
from sid_jax.experiment.build import open_teacher
from sid_jax.experiment.paths import with_absolute_paths
from sid_jax.experiment.student import open_run
from sid_jax.runtime.run.record import TEACHER


def kept(workdir="none", **given):
    config = sid_jax.config.default()
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in given.items()})
    config = with_absolute_paths(config.lock(), str(workdir))
    return [config[group][key] if key else config[group] for group, _, key in (k.partition("__") for k in given)]


def test_a_run_keeps_its_paths_from_the_root(tmp_path, monkeypatch):
    folder = tmp_path / "a[1]"
    (folder / "teacher").mkdir(parents=True)
    (folder / "photos").mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    here = str(folder)
    paths = {"teacher": "teacher", "prompts": "~/p.txt", "text__cache": "../c", "evaluate__metric": "m"}
    assert kept(**paths) == [f"{here}/teacher", f"{tmp_path}/p.txt", f"{tmp_path}/c", f"{here}/m"]
    assert kept(real__source="photos", real__data_dir="d") == [f"{here}/photos", f"{here}/d"]
    assert kept(real__source="s/*.tar") == [f"{tmp_path}/a[[]1]/s/*.tar"]
    assert kept(teacher=f"file://{here}/teacher") == [f"{here}/teacher"]


def test_names_that_are_no_paths_stay():
    names = {
        "teacher": "org/name",
        "prompts": "bundled:digits_prompts.txt",
        "evaluate__metric": "bundled:digits_metric",
    }
    assert kept(**names) == list(names.values())
    assert kept(real__source="tfds:coco/2017", prompts="", teacher="bundled:digits") == [
        "tfds:coco/2017", "", "bundled:digits",
    ]  # fmt: skip


def test_a_run_of_before_keeps_the_name_of_its_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"real": {"source": "photos"}}))
    assert kept(tmp_path, real__source="./photos") == ["photos"]
    assert kept(tmp_path, real__source="others") == [f"{tmp_path}/others"]
    for odd in (b"\xff", b"[" * 1000, b"[]", b'{"real": 1}'):
        (tmp_path / "config.json").write_bytes(odd)
        assert kept(tmp_path, real__source="photos") == [f"{tmp_path}/photos"]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (sample, ["--run=s3://b/run", "--prompts=a", "--out=x"]),
        (sample, ["--run=x://b/run", "--prompts=a", "--out=x"]),
        (sample, ["--model=gs://b/model", "--prompts=a", "--out=x"]),
        (sample, ["--model=bundled:digits", "--prompts=a", "--out=https://host/x"]),
        (sample, ["--model=bundled:digits", "--prompts=https://host/p.txt", "--out=x"]),
        (export, ["--run=https://host/run", "--out=x"]),
        (export, ["--run=x", "--out=gs://b/x"]),
        (evaluate, ["--run=az://b/run"]),
        (evaluate, ["--model=hf://org/name"]),
        (evaluate, ["--run=x", "--json=memory://x"]),
        (encode, ["--config=configs/sd15_1step_gan.py", "--out=gs://b/x"]),
    ],
)
def test_an_address_that_cannot_be_opened_is_one_line(command, arguments):
    with pytest.raises(UserError, match="://"):
        command.main(arguments)


@pytest.mark.parametrize("odd", [b"\xff", b"[" * 1000, b"[]", b"{", b'{"batch": "x"}'])
def test_a_config_of_a_run_that_is_damaged_is_one_line(tmp_path, odd):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_bytes(odd)
    with pytest.raises(UserError):
        open_run(str(tmp_path))


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_a_config_of_a_run_that_is_no_file_is_one_line(tmp_path, make):
    make(tmp_path / "config.json")
    with pytest.raises(UserError, match=r"config\.json: is a"):
        open_run(str(tmp_path))


def test_a_run_is_opened_by_its_home_and_not_with_another_teacher(finished, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(finished.parent))
    student = open_run("~/run")
    assert student.config.teacher == str(tiny / "teacher")
    noted = json.loads((finished / TEACHER).read_text())
    assert set(noted) == {"process", "unet", "text_encoder", "vae", "tokenizer"}

    run = tmp_path / "run"
    run.mkdir()
    shutil.copytree(finished / "checkpoints", run / "checkpoints")
    teacher = shutil.copytree(tiny / "teacher", tmp_path / "teacher")
    config = json.loads((finished / "config.json").read_text()) | {"teacher": str(teacher)}
    (run / "config.json").write_text(json.dumps(config))
    (run / TEACHER).write_text(json.dumps(noted))
    assert open_run(str(run)).step == student.step  # another place, the same teacher
    for name in (
        "vae/diffusion_pytorch_model.safetensors",
        "tokenizer/tokenizer.json",
        "text_encoder/model.safetensors",
    ):
        file, before = teacher / name, (teacher / name).read_bytes()
        other = before + b"\n" if file.suffix == ".json" else before[:-3] + bytes([before[-3] ^ 1]) + before[-2:]
        file.write_bytes(other)
        with pytest.raises(UserError, match=rf"trained from \({Path(name).parent} differ\): put that one back"):
            open_run(str(run))
        file.write_bytes(before)
    unet = teacher / "unet/diffusion_pytorch_model.safetensors"
    weights = unet.read_bytes()
    unet.write_bytes(weights[:-3] + bytes([weights[-3] ^ 1]) + weights[-2:])
    open_run(str(run))  # the student has its own
    with pytest.raises(UserError, match=r"trained from \(unet differ\)"):
        open_run(str(run), with_teacher=True)
    (run / TEACHER).unlink()
    file.write_bytes(other)
    open_run(str(run))  # a run of before, which has no record


def test_another_scheduler_is_another_teacher(tiny):
    config = sid_jax.config.default()
    config.teacher = str(tiny / "teacher")
    teacher = open_teacher(config)
    other = dataclasses.replace(teacher, process=dataclasses.replace(teacher.process, prediction_type="v_prediction"))
    one, two = teacher.fingerprints(), other.fingerprints()
    assert [name for name in one if one[name] != two[name]] == ["process"]
