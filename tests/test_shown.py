"""What a run shows: for which prompts or classes, with captions, and teacher beside student at its end."""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

import sid_jax.config
from sid_jax.errors import UserError
from sid_jax.evaluation.measure import beside_teacher
from sid_jax.experiment.paths import with_absolute_paths
from sid_jax.experiment.shown import captions_of, shown_of
from sid_jax.experiment.student import open_run
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.run.pictures import GAP, LINE
from sid_jax.runtime.run.resume import training_differences
from sid_jax.teachers.conditions import LabelConditions, PromptConditions

PROMPTS = PromptConditions((), (), lambda outputs, is_empty, resolution: {})


def config(images, prompts=""):
    return ConfigDict({"sample_images": images, "sample_prompts": prompts})


def test_by_default_a_grid_shows_some_of_all_that_is_asked_for():
    assert shown_of(config(3), PROMPTS, ["a", "b", "c", "d", "e", "f"]) == ["a", "c", "e"]
    assert shown_of(config(4), LabelConditions(2), [0, 1]) == [0, 0, 1, 1]


def test_prompts_of_the_users_are_all_shown(tmp_path):
    (tmp_path / "shown.txt").write_text("a fox\na cat, asleep\n")
    assert shown_of(config(4, str(tmp_path / "shown.txt")), PROMPTS, ["x"]) == ["a fox"] * 2 + ["a cat, asleep"] * 2
    assert shown_of(config(2, "a fox"), PROMPTS, ["x"]) == ["a fox"] * 2
    assert shown_of(config(3, "7,1-2"), LabelConditions(10), list(range(10))) == [7, 1, 2]
    with pytest.raises(
        UserError, match=r"^config key sample_images is 1, and sample_prompts has 2 prompts: .* to 2 or"
    ):
        shown_of(config(1, str(tmp_path / "shown.txt")), PROMPTS, ["x"])
    with pytest.raises(UserError, match=r"^config key sample_prompts: prompts file .*none.txt does not exist"):
        shown_of(config(1, str(tmp_path / "none.txt")), PROMPTS, ["x"])
    with pytest.raises(
        UserError, match=r"^config key sample_prompts: classes '10': the teacher has the classes 0 to 9"
    ):
        shown_of(config(1, "10"), LabelConditions(10), [0])


def test_a_file_of_them_is_kept_from_the_root_and_a_prompt_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = sid_jax.config.default()
    for given, kept in (("shown.txt", str(tmp_path / "shown.txt")), ("a fox/cat", "a fox/cat"), ("0-9", "0-9")):
        settings.sample_prompts = given
        assert with_absolute_paths(settings, "run").sample_prompts == kept


def test_a_run_may_show_something_else_when_it_goes_on():
    before = sid_jax.config.default().to_dict()
    now = before | {"sample_prompts": "a fox", "sample_images": 4}
    assert training_differences(before, now) == {}


def test_captions():
    assert captions_of(["a fox", "a cat"]) == ["a fox", "a cat"]
    assert captions_of([0, 7]) == ["class 0", "class 7"]
    assert captions_of([-1, -1]) is None  # of a teacher without classes


def test_teacher_and_student_begin_with_the_same_noise(finished):
    """A student that is its teacher, sampled as the teacher is, makes the same images."""
    student = open_run(str(finished), "denoiser", "conditions", "space")
    teacher = student.teacher
    sampler = teacher.sampler(student.config.evaluate.teacher_steps, student.config.evaluate.teacher_guidance)
    same = dataclasses.replace(student, params=teacher.denoiser.params, sampler=sampler)
    picture = beside_teacher(same, ["a handwritten three", "the digit 7"], meshes.make_mesh())
    pixels, width = np.asarray(picture)[2 * LINE :], (picture.width - 4 * GAP) // 2  # without the titles
    np.testing.assert_array_equal(pixels[:, :width], pixels[:, -width:])
