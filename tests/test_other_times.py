"""A teacher whose scheduler has 500 training times: every command takes it as it takes one with 1,000."""

import json
import shutil

import pytest
from PIL import Image

from sid_jax import evaluate, export, sample, train
from sid_jax.errors import UserError


@pytest.fixture
def teacher(tiny, tmp_path):
    """The tiny teacher with 500 times."""
    folder = shutil.copytree(tiny / "teacher", tmp_path / "teacher")
    file = folder / "scheduler/scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_train_timesteps": 500}))
    return folder


def test_a_teacher_with_500_times(teacher, tiny_overrides, tmp_path):
    sample.main(
        [f"--model={teacher}", "--prompts=a handwritten three", "--steps=2", f"--out={tmp_path / 'of_teacher'}"]
    )

    run, exported = tmp_path / "run", tmp_path / "exported"
    times = ["--config.sid.t_init=none", "--config.sid.t_min=10", "--config.sid.t_max=490"]
    arguments = [argument for argument in tiny_overrides if "teacher=" not in argument and "metric" not in argument]
    train.main([
        "--config=configs/digits_1step.py", f"--workdir={run}", f"--config.teacher={teacher}", *arguments, *times,
        "--config.images=8",  "--config.evaluate.metric=",
    ])  # fmt: skip
    settings = json.loads((run / "config.json").read_text())
    metric = next(argument.partition("=")[2] for argument in tiny_overrides if "metric" in argument)
    (run / "config.json").write_text(json.dumps(settings | {"evaluate": settings["evaluate"] | {"metric": metric}}))

    evaluate.main([f"--run={run}", f"--json={tmp_path / 'table.json'}"])
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["teacher"]["frechet_distance"] > 0 and table["student"]["frechet_distance"] > 0

    export.main([f"--run={run}", f"--out={exported}"])
    scheduler = json.loads((exported / "scheduler/scheduler_config.json").read_text())
    assert scheduler["num_train_timesteps"] == 500 * 625 // 1000 + 1
    for flag, name in ((f"--run={run}", "a"), (f"--model={exported}", "b")):
        # As many as the run shows: one program.
        sample.main([flag, "--prompts=a handwritten three", "--n=4", f"--out={tmp_path / name}"])
    assert (tmp_path / "a/0000.png").read_bytes() == (tmp_path / "b/0000.png").read_bytes()
    assert Image.open(tmp_path / "of_teacher/0000.png").size == (32, 32)


def test_times_that_it_has_not_are_named_before_anything_is_trained(teacher, tiny_arguments):
    with pytest.raises(UserError, match=r"sid\.t_min, sid\.t_max: 0 <= t_min < t_max <= 500 is needed, not 20 and 980"):
        train.main([*tiny_arguments, f"--config.teacher={teacher}", "--config.sid.t_init=none"])
    with pytest.raises(UserError, match=r"sid\.t_init: 625 is not in \[0, 500\)"):
        train.main([*tiny_arguments, f"--config.teacher={teacher}"])
