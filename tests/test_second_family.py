"""The seam: a family that no module knows is distilled, sampled and exported by the commands as they are."""

import json

import jax
import numpy as np
import pytest
import toy_family
from training_runs import metrics_of

from sid_jax import evaluate, export, plan, sample, train
from sid_jax.errors import UserError
from sid_jax.experiment.student import open_model, open_run
from sid_jax.formats.safetensors_files import open_weights

CONFIG = """
import sid_jax.config

def get_config():
    c = sid_jax.config.default("toy")
    c.teacher = {teacher!r}
    c.batch, c.images = 4, 12
    c.sid.num_steps = {steps}
    c.optimizer.fake_lr = c.optimizer.generator_lr = 1e-3
    c.precision.compute = c.precision.teacher = "float32"
    c.log_every, c.sample_images, c.evaluate.pictures = 1, 3, 0
    return c
"""


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A teacher of the second family on disk, and a function that writes a config for it."""
    toy_family.register(monkeypatch)
    toy_family.write_teacher(tmp_path / "teacher")

    def config(steps=1):
        file = tmp_path / f"toy_{steps}.py"
        file.write_text(CONFIG.format(teacher=str(tmp_path / "teacher"), steps=steps))
        return f"--config={file}"

    return config


def weights_of(folder):
    return dict(open_weights(folder / "denoiser", "diffusion_pytorch_model").tensors())


@pytest.mark.parametrize("steps", [1, 4])
def test_the_second_family_is_distilled_sampled_and_exported(toy, tmp_path, steps):
    run, exported = tmp_path / "run", tmp_path / "exported"
    train.main([toy(steps), f"--workdir={run}"])
    lines = metrics_of(run)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(np.isfinite(line[name]) for line in lines for name in ("fake_loss", "generator_loss"))
    assert lines[-1]["generator_grad_norm"] > 0

    export.main(["--run", str(run), "--out", str(exported)])
    for flag, name in ((f"--run={run}", "a"), (f"--model={exported}", "b")):
        sample.main([flag, "--classes=0-2", "--n=2", f"--out={tmp_path / name}"])
    assert len(list((tmp_path / "a").glob("0*.png"))) == 6
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    sample.main(
        [f"--model={tmp_path / 'teacher'}", "--classes=1", "--steps=3", "--guidance=2", f"--out={tmp_path / 'c'}"]
    )

    # What is trained has changed; what is constant came along as it was.
    before, after = weights_of(tmp_path / "teacher"), weights_of(exported)
    assert before.keys() == after.keys()
    assert {name for name in before if np.array_equal(before[name], after[name])} == {"frequencies"}


def test_it_goes_on_to_the_bit(toy, tmp_path):
    train.main([toy(), f"--workdir={tmp_path / 'straight'}"])
    train.main([toy(), f"--workdir={tmp_path / 'cut'}", "--config.images=8"])
    train.main([toy(), f"--workdir={tmp_path / 'cut'}"])
    one, other = (open_run(str(tmp_path / name)).params for name in ("straight", "cut"))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))
    assert metrics_of(tmp_path / "straight") == metrics_of(tmp_path / "cut")


def test_a_plan_takes_it(toy, capsys):
    assert plan.main([toy(), "--target=cpu:1"]) == 0
    assert "fits" in capsys.readouterr().out


def test_its_config_has_no_keys_of_other_families(toy, tmp_path):
    with pytest.raises(UserError, match=r"unknown config key guidance\.scale"):
        train.main([toy(), f"--workdir={tmp_path / 'run'}", "--config.guidance.scale=2"])


def test_a_teacher_of_another_family_than_the_config_is_an_error(toy, tmp_path):
    with pytest.raises(UserError, match=r"config key family is 'stable_diffusion', but the teacher .* is of 'toy'"):
        train.main([
            "--config=configs/digits_1step.py", f"--workdir={tmp_path / 'run'}",
            f"--config.teacher={tmp_path / 'teacher'}",
        ])  # fmt: skip


@pytest.mark.parametrize("classes", ["3", "0-3", "two", "1-", "-1"])
def test_classes_that_are_not_there_are_an_error(toy, tmp_path, classes):
    toy()
    with pytest.raises(UserError, match="classes"):
        sample.main([f"--model={tmp_path / 'teacher'}", f"--classes={classes}", f"--out={tmp_path / 'a'}"])


def test_a_constant_that_is_not_what_the_config_says_is_an_error(toy, tmp_path):
    file = tmp_path / "teacher/denoiser/diffusion_pytorch_model.safetensors"
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    place = start + header["frequencies"]["data_offsets"][0]
    file.write_bytes(content[:place] + np.float32(0.5).tobytes() + content[place + 4 :])
    with pytest.raises(UserError, match=r"frequencies is not what the network of its config\.json has there"):
        open_model(str(tmp_path / "teacher"))


def test_a_model_that_was_not_exported_has_no_student_to_measure(toy, tmp_path):
    with pytest.raises(UserError, match=r"is not a student that sid_jax\.export wrote"):
        evaluate.main([f"--model={tmp_path / 'teacher'}"])
