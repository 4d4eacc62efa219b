"""The train command: what a run writes, that it is reproducible, and that it goes on where it was."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from sid_jax import experiment, train
from sid_jax.errors import UserError


def student_bits(workdir):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(experiment.open_run(str(workdir)).params)]


def test_a_run_writes_its_metrics_grids_checkpoints_and_table(tiny_arguments, tmp_path, capsys):
    train.main(tiny_arguments)
    run = tmp_path / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["images"]) for line in lines] == [(2, 16), (4, 32), (6, 48)]
    assert all(np.isfinite(line[name]) for line in lines for name in ("fake_loss", "generator_loss"))
    assert all(line["dropped_fake"] == line["dropped_generator"] == line["nonfinite_grads"] == 0 for line in lines)
    assert sorted(path.name for path in (run / "samples").iterdir()) == [
        f"student-{step:06d}.png" for step in (0, 3, 6)
    ]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["3", "6"]
    assert json.loads((run / "config.json").read_text())["batch"] == 8
    assert any((run / "tensorboard").iterdir())

    table = json.loads((run / "table.json").read_text())
    assert table["samples"] == 100 and table["teacher"]["steps"] == 2 and table["student"]["steps"] == 1
    for row in (table["teacher"], table["student"]):
        assert row["frechet_distance"] > 0 and 0 <= row["prompt_accuracy"] <= 1 and row["seconds_per_1000"] > 0
    assert (run / "table.txt").read_text() in capsys.readouterr().out
    assert Image.open(run / "side_by_side.png").width > 1000


def test_training_changes_the_student_and_not_the_teacher(tiny_arguments, tmp_path, tiny):
    train.main([*tiny_arguments, "--config.evaluate.metric="])
    student = experiment.open_run(str(tmp_path / "run"), parts=("unet",))
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), student.params, student.teacher.unet.params)
    assert np.mean(jax.tree.leaves(changed)) > 0.9


def test_the_same_config_and_seed_twice_give_the_same_bits(tiny_arguments, tmp_path):
    arguments = [*tiny_arguments, "--config.evaluate.metric="]
    train.main([*arguments, f"--workdir={tmp_path / 'a'}"])
    train.main([*arguments, f"--workdir={tmp_path / 'b'}"])
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == (tmp_path / "b/metrics.jsonl").read_bytes()
    assert student_bits(tmp_path / "a") == student_bits(tmp_path / "b")

    train.main([*arguments, f"--workdir={tmp_path / 'c'}", "--config.seed=1"])
    assert (tmp_path / "a/metrics.jsonl").read_bytes() != (tmp_path / "c/metrics.jsonl").read_bytes()


@pytest.mark.parametrize("noise", ["fresh", "fixed", "ddim"])
def test_a_run_that_is_interrupted_and_goes_on_equals_one_that_is_not(tiny_arguments, tmp_path, monkeypatch, noise):
    several = ["--config.evaluate.metric=", "--config.sid.num_steps=3", "--config.sid.t_init=999"]
    arguments = [*tiny_arguments, *several, f"--config.sid.noise={noise}"]
    train.main([*arguments, f"--workdir={tmp_path / 'straight'}"])

    def interrupt(window, step, config, workdir):
        if step == 4:
            raise KeyboardInterrupt

    # The line of update 4 is written by then, but the newest checkpoint is of update 3: between two lines of the log.
    with monkeypatch.context() as patched:
        patched.setattr(train, "stop_if_bad", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train.main([*arguments, f"--workdir={tmp_path / 'resumed'}"])
    train.main([*arguments, f"--workdir={tmp_path / 'resumed'}"])
    straight, resumed = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("straight", "resumed"))
    assert straight == resumed
    assert student_bits(tmp_path / "straight") == student_bits(tmp_path / "resumed")


def test_a_finished_run_is_only_measured_again(tiny_arguments, tmp_path):
    train.main(tiny_arguments)
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    (tmp_path / "run/table.txt").unlink()
    train.main(tiny_arguments)
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before
    assert (tmp_path / "run/table.txt").exists()


def test_other_settings_in_the_same_workdir_stop_the_run(tiny_arguments):
    arguments = [*tiny_arguments, "--config.evaluate.metric="]
    train.main(arguments)
    with pytest.raises(UserError, match=r"optimizer.lr was 0.0001 and is 0.5"):
        train.main([*arguments, "--config.optimizer.lr=0.5"])


def test_losses_that_stay_non_finite_stop_the_run(tiny_arguments, tmp_path):
    # With steps of this size the networks overflow at once.
    huge = ["--config.optimizer.lr=1e30", "--config.optimizer.glr=1e30", "--config.max_bad_steps=2"]
    with pytest.raises(UserError, match=r"not finite for \d updates up to update \d"):
        train.main([*tiny_arguments, "--config.evaluate.metric=", *huge])
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["dropped_fake"] == 16  # every sample of the two updates, and none of it silent


def test_gradient_accumulation_trains(tiny_arguments, tmp_path):
    train.main([*tiny_arguments, "--config.evaluate.metric=", "--config.accumulation=4"])
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and all(np.isfinite(line["generator_loss"]) for line in lines)
