"""Bad input ends every command with one clear line and exit code 2, never with a traceback."""

import os
import shutil
import subprocess
import sys

import pytest

from sid_jax import evaluate, export, pretrain, sample, train
from sid_jax.runtime.cli import command_line


@pytest.fixture
def fails(capsys):
    """Runs a command that must fail, and returns the line that it prints."""

    def run(command, *arguments):
        assert command_line.run(command.main, [str(argument) for argument in arguments]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        return lines[0]

    return run


@pytest.fixture
def broken(tiny, tmp_path):
    """A copy of the tiny teacher to break."""
    return shutil.copytree(tiny / "teacher", tmp_path / "broken")


def test_a_real_process_prints_one_line_and_exits_with_2():
    command = [sys.executable, "-m", "sid_jax.train", "--config", "configs/nothing.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "configs/nothing.py does not exist" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "override, says",
    [
        ("--config.nothing=1", "unknown config key nothing"),
        ("--config.optimizer.lrr=1", "did you mean optimizer.fake_lr?"),
        ("--config.batch=many", "config key batch takes an int, not 'many'"),
        ("--config.batch=1.5", "config key batch takes an int, not '1.5'"),
        ("--config.batch=0", "batch"),
        ("--config.accumulation=3", "batch 8 can't be split"),
        ("--config.teacher=/nowhere", "/nowhere: no such folder"),
        ("--config.teacher=", "teacher is empty"),
        ("--config.teacher=bundled:cats", "bundled:cats does not come with the package"),
        ("--config.prompts=/nowhere.txt", "prompts file /nowhere.txt does not exist"),
        ("--config.prompts=", "prompts is empty"),
        ("--config.resolution=33", "resolution 33"),
        ("--config.sid.t_init=1000", "sid.t_init: 1000"),
        ("--config.sid.noise=pink", "config key sid.noise is 'pink': use fresh, fixed or ddim"),
        ("--config.sid.weighting=heavy", "config key sid.weighting is 'heavy': use sid, snr, "),
        (
            "--config.guidance.strategy=cfg",
            "guidance.strategy is 'cfg': use none, lsg, zero_cfg or anti_cfg",
        ),
        ("--config.precision.compute=fp8", "precision.compute"),
        ("--config.mesh.data=3", "mesh.data 3"),
        ("--config.log_every=0", "log_every is 0"),
        ("--config.images=-5", "images is -5"),
        ("--config.evaluate.metric=/nowhere", "/nowhere"),
        ("--config.evaluate.every=3", "evaluate.every is 3"),
        ("--config.keep_checkpoints=0", "keep_checkpoints is 0"),
        ("--config.keep_best_mode=most", "keep_best_mode is 'most'"),
        ("--config.keep_best=2", "nothing measures frechet_distance"),
        ("--config.batch=100000000", "batch is 100000000: use an int in [1, 2^20]"),
        ("--config.optimizer.eps=nan", "optimizer.eps is nan: use a number in (0, 1e9]"),
        ("--config.guidance.kappa4=inf", "guidance.kappa4 is inf"),
        ("--config.sid.loss_scale=-1", "sid.loss_scale is -1.0"),
        ("--config.guidance.scale=2", "guidance.scale: 2.0 is of strategy lsg, and 'none' has none"),
        ("--config.on_failed_save=cry", "on_failed_save is 'cry'"),
        ("--config.checkpoint_minutes=-1", "checkpoint_minutes is -1"),
        ("--profile=5:5", "--profile is '5:5'"),
        ("--resume=maybe", "--resume"),
    ],
)
def test_settings(fails, tiny_arguments, override, says):
    assert says in fails(train, *tiny_arguments, override)


@pytest.mark.parametrize(
    "override, says",
    [
        ("--config.evaluate.teacher_steps=1000", "DDIM takes 1 to 999 steps, not 1000"),
        ("--config.resolution=64", "the metric"),
        ("--config.evaluate.samples=99", "99 samples are too few"),
    ],
)
def test_what_the_table_needs_is_refused_before_the_training(fails, tiny_overrides, tmp_path, override, says):
    run = tmp_path / "run"
    command = ["--config=configs/digits_1step.py", f"--workdir={run}", *tiny_overrides, override]
    assert says in fails(train, *command)
    assert not (run / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    "file, says",
    [
        ("unet/diffusion_pytorch_model.safetensors", "unet"),
        ("vae/config.json", "vae/config.json"),
        ("text_encoder/model.safetensors", "text_encoder"),
        ("tokenizer", "tokenizer"),
        ("scheduler/scheduler_config.json", "scheduler_config.json"),
        ("model_index.json", "model_index.json"),
    ],
)
def test_a_teacher_without_a_file(fails, tiny_arguments, broken, file, says):
    path = broken / file
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert says in fails(train, *tiny_arguments, f"--config.teacher={broken}")


def test_a_truncated_file(fails, tiny_arguments, broken):
    file = broken / "unet/diffusion_pytorch_model.safetensors"
    os.truncate(file, file.stat().st_size // 2)
    assert str(file) in fails(train, *tiny_arguments, f"--config.teacher={broken}")


def test_an_empty_prompts_file(fails, tiny_arguments, tmp_path):
    (tmp_path / "empty.txt").write_text("\n  \n")
    assert "empty.txt is empty" in fails(train, *tiny_arguments, f"--config.prompts={tmp_path / 'empty.txt'}")


def test_a_workdir_that_is_a_file(fails, tiny_arguments, tmp_path):
    (tmp_path / "file").write_text("")
    assert "a file is in its way" in fails(train, *tiny_arguments, f"--workdir={tmp_path / 'file'}")


def test_a_link_out_of_the_workdir(fails, tiny_arguments, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    assert "checkpoints is a link out of" in fails(train, *tiny_arguments)
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_workdir_that_cannot_be_written(fails, tiny_arguments):
    assert "/proc/run can't be" in fails(train, *tiny_arguments, "--workdir=/proc/run")


def test_what_is_not_a_run(fails, tmp_path):
    assert "is not the folder of a run" in fails(sample, "--run", tmp_path, "--prompts", "7", "--out", tmp_path / "o")
    assert "is not the folder of a run" in fails(export, "--run", tmp_path, "--out", tmp_path / "o")
    assert "is not the folder of a run" in fails(evaluate, "--run", tmp_path)


def test_sample(fails, tiny, tmp_path):
    model = ["--model", tiny / "teacher", "--out", tmp_path / "o"]
    assert "--n is 0" in fails(sample, *model, "--prompts", "7", "--n", "0")
    assert "--seed is -1" in fails(sample, *model, "--prompts", "7", "--seed", "-1")
    assert "DDIM takes 1 to 999 steps, not 0" in fails(sample, *model, "--prompts", "7", "--steps", "0")
    assert "missing.txt does not exist" in fails(sample, *model, "--prompts", tmp_path / "missing.txt")
    assert "one of the arguments --run --model is required" in fails(sample, "--prompts", "7", "--out", "o")


def test_evaluate_of_a_teacher(fails, tiny):
    assert "is not a student" in fails(evaluate, "--model", tiny / "teacher")


def test_pretrain_without_data(fails, tmp_path):
    arguments = ["--config=configs/digits_teacher.py", f"--out={tmp_path / 'out'}"]
    assert "no such file" in fails(pretrain, *arguments, f"--config.data={tmp_path / 'missing.npz'}")
