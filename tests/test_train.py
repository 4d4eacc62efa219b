"""The train command: what a run writes, that it is reproducible, and that it goes on where it was."""

import dataclasses
import json
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from training_runs import metrics_of, student_bits, train_until_interrupted

from sid_jax import sample, train
from sid_jax.data.prompts import read_prompt_file
from sid_jax.errors import UserError
from sid_jax.evaluation.asked import in_turn
from sid_jax.evaluation.measure import StudentQuality, open_metric
from sid_jax.experiment.images import ImageProgram
from sid_jax.experiment.student import open_run
from sid_jax.runtime.devices.preemption import Preempted
from sid_jax.runtime.devices.profile import Profile
from sid_jax.runtime.run.checkpoints import Checkpoints
from sid_jax.runtime.run.log import make_workdir
from sid_jax.runtime.run.owner import owning
from sid_jax.runtime.run.pictures import GAP, LINE, MOST_LINES
from sid_jax.sid import jit_train_step


def test_a_run_writes_its_metrics_grids_checkpoints_and_table(finished):
    lines = metrics_of(finished)
    assert [(line["step"], line["images"]) for line in lines] == [(2, 16), (4, 32), (6, 48)]
    assert all(np.isfinite(line[name]) for line in lines for name in ("fake_loss", "generator_loss"))
    assert all(line["dropped_fake"] == line["dropped_generator"] == line["nonfinite_grads"] == 0 for line in lines)
    grids = sorted(path.name for path in (finished / "samples").iterdir())
    assert grids == [f"student-{step:06d}.png" for step in (0, 3, 6)]
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["3", "6"]
    assert json.loads((finished / "config.json").read_text())["batch"] == 8
    assert any((finished / "tensorboard").iterdir())

    table = json.loads((finished / "table.json").read_text())
    assert table["samples"] == 100 and table["teacher"]["steps"] == 2 and table["student"]["steps"] == 1
    for row in (table["teacher"], table["student"]):
        assert row["frechet_distance"] > 0 and 0 <= row["prompt_accuracy"] <= 1 and row["seconds_per_1000"] > 0
    assert "seconds / 1,000 images" in (finished / "table.txt").read_text()
    assert Image.open(finished / "side_by_side.png").width > 1000
    page = (finished / "report.html").read_text()
    assert "Teacher beside student" in page and "<td>teacher</td><td>2</td>" in page and "update 6 of 6" in page


def test_training_changes_the_student_and_not_the_teacher(finished):
    student = open_run(str(finished), "denoiser")
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), student.params, student.teacher.denoiser.params)
    assert np.mean(jax.tree.leaves(changed)) > 0.9


def test_a_run_whose_state_has_another_form_is_one_line(tiny_arguments, tmp_path):
    with Checkpoints(tmp_path / "run/checkpoints") as checkpoints:
        checkpoints.save(3, {"step": jnp.int32(3), "generator_moment": jnp.zeros(2)}, {}, {"batch": 8})
    with pytest.raises(UserError, match=r"a run of another version of sid_jax \(its state has generator_moment and"):
        train.main(tiny_arguments)
    assert (tmp_path / "run/checkpoints/3").is_dir()  # and is left as it was


def test_the_student_is_measured_in_training_as_it_is_in_the_table(finished):
    student = open_run(str(finished), "conditions", "space")
    config = student.config
    metric, prompts = open_metric(config, config.evaluate.samples), read_prompt_file(config.prompts)
    program = ImageProgram(student.teacher, student.sampler, config.resolution)
    asked = in_turn(prompts, config.evaluate.samples)
    found = StudentQuality(program, metric, asked, config.seed)(student.params)
    row = json.loads((finished / "table.json").read_text())["student"]
    assert "frechet_distance" in found and found == {name: row[name] for name in found}


@pytest.mark.slow
def test_another_seed_gives_others(finished, tiny_arguments, tmp_path):
    train.main([*tiny_arguments, "--config.seed=1"])
    assert (finished / "metrics.jsonl").read_bytes() != (tmp_path / "run/metrics.jsonl").read_bytes()


def test_a_run_that_is_interrupted_and_goes_on_equals_one_that_is_not(finished, tiny_arguments, tmp_path, monkeypatch):
    """The same config and seed twice give the same bits, and so they do in three parts."""

    def preempt(step, *rest):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    # The line of update 4 is written by then, but the newest checkpoint is of update 3: between two lines of the log.
    train_until_interrupted(tiny_arguments, 4, monkeypatch)
    # The signal arrives in update 5, whose state is saved.
    with monkeypatch.context() as patched:
        patched.setattr(Profile, "before", lambda self, step: preempt(step))
        with pytest.raises(Preempted, match=r"^preempted at update 5 of 6: 5 updates, 40 images"):
            train.main(tiny_arguments)
    assert (tmp_path / "run" / "checkpoints" / "5").is_dir()
    train.main(tiny_arguments)
    assert (finished / "metrics.jsonl").read_bytes() == (tmp_path / "run/metrics.jsonl").read_bytes()
    assert student_bits(finished) == student_bits(tmp_path / "run")


def test_a_finished_run_is_only_measured_again(finished, tiny_overrides, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "table.txt").unlink()
    train.main(["--config=configs/digits_1step.py", f"--workdir={run}", *tiny_overrides])
    assert (run / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    assert (run / "table.txt").exists()


def test_a_run_from_before_there_were_some_settings_goes_on(finished, tiny_overrides, tmp_path, monkeypatch):
    def lacking(checkpoints):
        saved = json.loads((finished / "config.json").read_text())
        del saved["optimizer"]["clip_norm"], saved["optimizer"]["fake_warmup"], saved["sample_prompts"]
        return saved

    run = shutil.copytree(finished, tmp_path / "run")
    monkeypatch.setattr(Checkpoints, "config", lacking)
    arguments = ["--config=configs/digits_1step.py", f"--workdir={run}", *tiny_overrides, "--config.evaluate.metric="]
    train.main(arguments)
    assert "done: 6 updates" in (run / "run.log").read_text()
    with pytest.raises(UserError, match=r'optimizer\.clip_norm was "unset" and is 0\.5'):
        train.main([*arguments, "--config.optimizer.clip_norm=0.5"])


def test_other_settings_in_the_same_workdir_stop_the_run(finished, tiny_overrides, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    arguments = ["--config=configs/digits_1step.py", f"--workdir={run}", *tiny_overrides]
    with pytest.raises(UserError, match=r"optimizer.fake_lr was .* and is 0.5"):
        train.main([*arguments, "--config.optimizer.fake_lr=0.5"])


def test_other_settings_and_prompts_are_gone_on_with_if_that_is_forced(finished, tiny_overrides, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "other.txt").write_text("a four\n")
    arguments = [
        "--config=configs/digits_1step.py", f"--workdir={run}", *tiny_overrides, "--config.evaluate.metric=",
        f"--config.prompts={tmp_path / 'other.txt'}",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"the prompts are not those .* --resume=force"):
        train.main(arguments)
    train.main([*arguments, "--config.optimizer.fake_lr=0.5", "--resume=force"])
    said = (run / "run.log").read_text()
    assert "going on with other settings, as --resume=force asks: optimizer.fake_lr was" in said
    assert "going on with other prompts" in said
    assert (
        "done: 6 updates, 48 images, " in said
        and f"the run is in {run}, its newest checkpoint in {run / 'checkpoints' / '6'}" in said
    )


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_run_in_a_folder_is_refused_and_changes_nothing(tiny_arguments, tmp_path):
    run = make_workdir(str(tmp_path / "run"))
    (run / "config.json").write_text("{}")
    with owning(run):
        before = contents(tmp_path / "run")
        with pytest.raises(UserError, match=f"^workdir {run} is in use by process {os.getpid()} on .*, since 20"):
            train.main([*tiny_arguments, "--config.seed=1"])
        assert contents(tmp_path / "run") == before


def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew(finished, tiny_arguments, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    before = contents(run)
    with pytest.raises(UserError, match=r"had a checkpoint of update 6, and .*/checkpoints is gone: mount its disk"):
        train.main(tiny_arguments)
    before.pop("run.log")
    assert {name: content for name, content in contents(run).items() if name != "run.log"} == before
    (run / "checkpoints" / "6").mkdir(parents=True)
    with pytest.raises(UserError, match="begins anew only where they are gone"):
        train.main([*tiny_arguments, "--resume=restart"])


def test_a_run_goes_on_with_its_own_teacher_alone(finished, tiny, tiny_overrides, tmp_path):
    run, teacher = shutil.copytree(finished, tmp_path / "run"), shutil.copytree(tiny / "teacher", tmp_path / "teacher")
    arguments = [
        "--config=configs/digits_1step.py", f"--workdir={run}", *tiny_overrides, "--config.evaluate.metric=",
        f"--config.teacher={teacher}",
    ]  # fmt: skip
    train.main(arguments)  # at another place
    assert json.loads((run / "config.json").read_text())["teacher"] == str(teacher)
    weights = teacher / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2] + b"\x00\x01")
    with pytest.raises(UserError, match=r"^the teacher is not the one that the run in .* \(vae differ\): put that one"):
        train.main(arguments)
    train.main([*arguments, "--resume=force"])
    assert "going on with another teacher, as --resume=force asks: vae differ" in (run / "run.log").read_text()


def test_losses_that_stay_non_finite_stop_the_run(tiny_arguments, tmp_path, monkeypatch):
    def leaping(*arguments, **options):
        """The train step of the other runs; its first update goes as far as with a learning rate of 1e30."""
        step = jit_train_step(*arguments, **options)

        def update(state, *rest):
            first = int(state.step) == 0
            state, metrics = step(state, *rest)
            if first:  # with steps of this size the networks overflow at once
                networks = {"generator": state.generator, "fake": state.fake}
                far = jax.tree.map(lambda p: jax.device_put(p - 1e30, p.sharding), networks)
                state = dataclasses.replace(state, **far)
            return state, metrics

        return update

    monkeypatch.setattr(train, "jit_train_step", leaping)
    with pytest.raises(UserError, match=r"for [2-6] updates, from update \d to \d; there is no checkpoint"):
        train.main([*tiny_arguments, "--config.max_bad_steps=2"])
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["dropped_generator"] == 16  # every sample of the two updates, and none of it silent


@pytest.mark.slow
def test_wide_images_warm_up_and_limits_go_on_to_the_bit(tiny_arguments, tmp_path):
    """Grids and samples have the wanted proportions; the rates grow with the images of both starts together."""
    settings = (
        "--config.resolution=32x48", "--config.optimizer.fake_warmup=32", "--config.optimizer.generator_warmup=40",
        "--config.optimizer.clip_norm=0.5", "--config.log_every=1",
    )  # fmt: skip
    train.main([*tiny_arguments, *settings])
    train.main([*tiny_arguments, *settings, f"--workdir={tmp_path / 'halves'}", "--config.images=24"])
    train.main([*tiny_arguments, *settings, f"--workdir={tmp_path / 'halves'}"])
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "halves")
    assert student_bits(tmp_path / "run") == student_bits(tmp_path / "halves")
    rates = [(line["fake_lr"] / 6e-4, line["generator_lr"] / 1.5e-4) for line in metrics_of(tmp_path / "run")]
    np.testing.assert_allclose(rates, np.minimum(np.arange(1, 7)[:, None] * 8 / [32, 40], 1), rtol=1e-5)

    width, height = Image.open(tmp_path / "run/samples/student-000006.png").size
    assert width == 2 * (2 * 48 + GAP) + GAP
    assert 1 <= (height - 2 * (2 * 32 + GAP) - GAP) // (2 * LINE) <= MOST_LINES  # of captions
    sample.main([f"--run={tmp_path / 'run'}", "--prompts=a handwritten seven", f"--out={tmp_path / 'pictures'}"])
    assert Image.open(tmp_path / "pictures/0000.png").size == (48, 32)
