"""The verbs of the Python API do what the commands do, for each family, and refuse what they refuse."""

import copy
import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import toy_family
from PIL import Image

import sid_jax
import sid_jax.config
from sid_jax import api, export, sample, train
from sid_jax.errors import UserError

PROMPTS = ["a handwritten three", "a handwritten seven"]
QUICK = """
import sys
import sid_jax
assert not {"jax", "flax", "numpy", "ml_collections"} & set(sys.modules), "import sid_jax imports more than itself"
assert {"open_teacher", "open_student", "distill", "measure", "export", "config"} <= set(dir(sid_jax))
try:
    sid_jax.nothing
except AttributeError as error:
    assert str(error) == "module 'sid_jax' has no attribute 'nothing'"
"""


@pytest.fixture(scope="module")
def student(finished):
    return sid_jax.open_student(finished)


@pytest.fixture(scope="module")
def exported(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "exported"
    sid_jax.export(student, folder)
    return folder


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A teacher of three classes, and a config for it."""
    toy_family.register(monkeypatch)
    toy_family.write_teacher(tmp_path / "teacher")
    config = sid_jax.config.default("toy")
    config.teacher = str(tmp_path / "teacher")
    config.batch, config.images, config.log_every, config.sample_images = 4, 8, 1, 3
    config.optimizer.fake_lr = config.optimizer.generator_lr = 1e-3
    config.precision.compute = config.precision.teacher = "float32"
    return config


def pixels(folder):
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("0*.png"))])


def test_importing_the_package_imports_nothing_else():
    done = subprocess.run([sys.executable, "-c", QUICK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_verbs_are_those_of_the_api_and_a_command_can_be_called():
    for name in ("open_teacher", "open_student", "distill", "measure", "UserError"):
        assert getattr(sid_jax, name) is getattr(api, name)
    assert sid_jax.export is export and callable(export)


def test_images_are_those_of_the_command(student, finished, tmp_path):
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    sample.main([f"--run={finished}", f"--prompts={tmp_path / 'prompts.txt'}", "--seed=3", f"--out={tmp_path / 'a'}"])
    images = student.images(PROMPTS, seed=3)
    assert images.shape == (2, 32, 32, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(images, pixels(tmp_path / "a"))
    np.testing.assert_array_equal(student.images(PROMPTS[0], seed=3, n=2)[0], images[0])
    assert (student.step, student.num_steps, student.resolution) == (6, 1, 32)
    assert repr(student) == f"<Student {finished}, 32 px>"


def test_images_that_are_not_square(student):
    config = copy.deepcopy(student.config).unlock()
    config.resolution = (32, 48)
    wide = api.Student(dataclasses.replace(student.distilled, config=config), "wide", from_run=True)
    assert wide.images(PROMPTS).shape == (2, 32, 48, 3)
    assert wide.resolution == (32, 48) and repr(wide) == "<Student wide, 32x48 px>"


def test_a_checkpoint_of_a_run(student, finished):
    earlier = sid_jax.open_student(finished, step=3)
    assert earlier.step == 3 and (earlier.images(PROMPTS) != student.images(PROMPTS)).any()


def test_an_export_is_opened_and_makes_the_same_images(student, exported):
    opened = sid_jax.open_student(exported)
    assert not opened.from_run and opened.step == 6 and opened.config.batch == student.config.batch
    np.testing.assert_array_equal(opened.images(PROMPTS), student.images(PROMPTS))


def test_the_folder_of_a_run_is_exported_as_its_student_is(finished, exported, tmp_path):
    export.main([f"--run={finished}", f"--out={tmp_path / 'out'}"])
    files = [file.relative_to(exported) for file in exported.rglob("*") if file.is_file()]
    assert len(files) > 10
    for file in files:
        assert (tmp_path / "out" / file).read_bytes() == (exported / file).read_bytes(), file


def test_a_teacher(tiny):
    teacher = sid_jax.open_teacher(tiny / "teacher")
    images = teacher.images(PROMPTS, steps=2)
    assert images.shape == (2, 32, 32, 3)
    assert (images != teacher.images(PROMPTS, steps=2, guidance=3.0)).any()


def test_measuring_gives_the_table_of_the_run(student, finished):
    found = sid_jax.measure(student)
    table = json.loads((finished / "table.json").read_text())
    for row, values in found.rows.items():
        for column, value in values.items():
            assert column == "seconds_per_1000" or value == pytest.approx(table[row][column], abs=1e-6)
    assert found.samples == 100 and str(found).startswith("  ") and "Frechet distance" in str(found)


def test_an_export_is_measured_with_what_is_said(exported, tiny, monkeypatch):
    measured = []
    monkeypatch.setattr(api.measuring, "measure", lambda student, samples: measured.append((student.config, samples)))
    with pytest.raises(UserError, match=r"names 'teacher' and not where it is: teacher=PATH says so"):
        sid_jax.measure(exported)
    where = {"teacher": tiny / "teacher", "prompts": tiny / "prompts.txt", "metric": tiny / "metric"}
    sid_jax.measure(exported, samples=7, **where)
    ((config, samples),) = measured
    assert samples == 7
    assert [config.teacher, config.prompts, config.evaluate.metric] == [str(place) for place in where.values()]


def test_a_family_with_labels_is_distilled_looked_at_exported_and_opened(toy, tmp_path):
    before = toy.to_dict()
    student = sid_jax.distill(toy, tmp_path / "run", settings={"images": 12, "sid.num_steps": 4})
    assert toy.to_dict() == before and not toy.is_locked
    assert student.step == 3 and student.config.sid.num_steps == student.num_steps == 4
    images = student.images()
    assert images.shape == (3, 8, 8, 3)
    for classes in ([0, 1, 2], np.arange(3), "0-2"):
        np.testing.assert_array_equal(student.images(classes), images)
    np.testing.assert_array_equal(student.images(0)[0], images[0])

    sid_jax.export(tmp_path / "run", tmp_path / "exported")
    np.testing.assert_array_equal(sid_jax.open_student(tmp_path / "exported").images(), images)
    teacher = sid_jax.open_teacher(tmp_path / "teacher")
    assert teacher.images([2, 2], steps=1).shape == (2, 8, 8, 3)
    for wrong, problem in (([3], "the classes 0 to 2"), ([0.5], "give labels, as int"), ([], "the classes 0 to 2")):
        with pytest.raises(UserError, match=problem):
            teacher.images(wrong)
    with pytest.raises(UserError, match=r"evaluate\.metric is empty"):
        sid_jax.measure(student)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"prompts": None}, "prompts is None: the teacher takes prompts"),
        ({"prompts": 7}, "prompts is 7: the teacher takes prompts: give a text, or a list of texts"),
        ({"prompts": []}, r"prompts is \[\]"),
        ({"prompts": ["a", 3]}, r"prompts is \['a', 3\]"),
        ({"seed": -1}, "^seed is -1: use 0 to "),
        ({"seed": 1.5}, r"^seed is 1\.5: use an int"),
        ({"n": 0}, "^n is 0: use a positive number"),
        ({"steps": 20_000}, "^steps is 20000: use at most 10000"),
        ({"steps": 0}, "^steps: "),
        ({"guidance": 2.0}, "^guidance is for teachers"),
        ({"guidance": float("nan")}, "^guidance is nan"),
    ],
)
def test_images_that_can_not_be_made(student, arguments, problem):
    with pytest.raises(UserError, match=problem):
        student.images(**{"prompts": PROMPTS, **arguments})


def test_what_can_not_be_opened_or_written(student, exported, finished, tiny, tmp_path):
    for call, problem in (
        (lambda: sid_jax.open_teacher(tmp_path / "nothing"), "no such folder"),
        (lambda: sid_jax.open_teacher(exported), "is a student .*: sid_jax.open_student opens it"),
        (lambda: sid_jax.open_student(tiny / "teacher"), "is not a student .*: sid_jax.open_teacher opens it"),
        (lambda: sid_jax.open_student(exported, step=3), "is not the folder of a run: leave it out"),
        (lambda: sid_jax.open_student(finished, step=4), "has no checkpoint of update 4: there are those of 3, 6"),
        (lambda: sid_jax.export(tiny, tmp_path / "out"), "is not the folder of a run"),
        (lambda: sid_jax.export(student, tmp_path / "out", step=3), "the student is open: leave it out"),
        (lambda: sid_jax.export(sid_jax.open_student(exported), tmp_path / "out"), "is an export already"),
        (lambda: sid_jax.export(student, "gs://bucket/out"), "folder gs://bucket/out is in a bucket"),
    ):
        with pytest.raises(UserError, match=problem):
            call()


def test_runs_that_can_not_be_started(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "distill", lambda *arguments: 1 / 0)
    digits, run = "configs/digits_1step.py", tmp_path / "run"
    incomplete = sid_jax.config.default()
    del incomplete.seed
    for call, problem in (
        (lambda: sid_jax.distill({}, run), "config is dict: give a file, or what sid_jax.config.default"),
        (lambda: sid_jax.distill(sid_jax.config.default()), "workdir is missing"),
        (lambda: sid_jax.distill(incomplete, run), "config lacks seed"),
        (lambda: sid_jax.distill(digits, run, resume="maybe"), "resume is 'maybe': use one of auto, force, restart"),
        (lambda: sid_jax.distill(digits, run, settings={"batchs": 1}), "unknown config key batchs: did you mean batch"),
        (lambda: sid_jax.distill(digits, run, settings={"batch": 1.5}), "config key batch takes an int, not '1.5'"),
        (lambda: sid_jax.distill("configs/nothing.py", run), "config configs/nothing.py does not exist"),
    ):
        with pytest.raises(UserError, match=problem):
            call()


def test_the_settings_and_the_folder_of_a_run(monkeypatch):
    started = []
    monkeypatch.setattr(train, "distill", lambda *arguments: started.append(arguments))
    monkeypatch.setattr(api, "open_student", lambda workdir: workdir)
    settings = {
        "images": 6400, "guidance.kappa4": 2, "scan": False, "sid.t_init": None, "teacher": "a b",
        "resolution": (16, 24),
    }  # fmt: skip
    assert sid_jax.distill("configs/digits_1step.py", settings=settings, resume="force") == "runs/digits_1step"
    ((config, workdir, resume),) = started
    assert (workdir, resume, config.images, config.guidance.kappa4) == ("runs/digits_1step", "force", 6400, 2.0)
    assert (config.scan, config.sid.t_init, config.teacher, config.batch) == (False, None, "a b", 64)
    assert config.resolution == (16, 24) and config.is_locked


def test_settings_of_jax_are_as_they_were_afterwards(student):
    before = student.images(PROMPTS)
    jax.config.update("jax_threefry_partitionable", False)
    try:
        np.testing.assert_array_equal(student.images(PROMPTS), before)
        assert not jax.config.jax_threefry_partitionable
    finally:
        jax.config.update("jax_threefry_partitionable", True)
