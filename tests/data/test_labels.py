"""Streams of class labels: every class as often as any other, or as a file counts them, or none at all."""

import json
from collections import Counter

import numpy as np
import pytest

from sid_jax.data.labels import CountedLabels, read_counts
from sid_jax.errors import UserError
from sid_jax.teachers.conditions import LabelConditions, PromptConditions


def drawn(stream, iterations):
    return [label for _ in range(iterations) for part in next(stream).values() for label in part.tolist()]


def test_every_class_comes_as_often_as_any_other():
    conditions = LabelConditions(10)
    found = drawn(conditions.stream(conditions.asked(None), 25, seed=3), 8)
    assert Counter(found) == dict.fromkeys(range(10), 40)


def test_counted_classes_come_as_often_as_they_are_counted_and_in_no_list():
    labels = CountedLabels([3, 0, 1, 2**30])
    assert len(labels) == 2**30 + 4
    assert labels[:5] == [0, 0, 0, 2, 3] and labels[-1] == 3 and labels[2**29] == 3
    with pytest.raises(IndexError):
        labels[2**30 + 4]
    stream = LabelConditions(4).stream(labels, 8, seed=0)
    assert Counter(drawn(stream, 4))[3] > 60

    epoch = drawn(LabelConditions(3).stream(CountedLabels([5, 0, 7]), 3, seed=1), 2)
    assert Counter(epoch) == {0: 5, 2: 7} and epoch != sorted(epoch)


def test_a_position_goes_on_and_is_one_of_the_same_counts():
    def stream(counts):
        return LabelConditions(3).stream(CountedLabels(counts), 4, seed=5)

    whole = stream([5, 6, 7])
    drawn(whole, 6)  # into the third epoch
    position = json.loads(json.dumps(whole.position()))
    other = stream([5, 6, 7])
    other.restore(position)
    assert drawn(other, 5) == drawn(whole, 5)
    with pytest.raises(UserError, match="the labels are not those that this run was started with"):
        stream([5, 7, 6]).restore(position)


def test_a_teacher_without_labels_is_asked_for_images_alone():
    conditions = LabelConditions(0)
    assert conditions.asked(None) == conditions.asked("", file=True) == [-1]
    assert set(drawn(conditions.stream([-1], 4, seed=0), 3)) == {-1}
    assert conditions.read([-1, -1]).dtype == np.int32
    with pytest.raises(UserError, match="the teacher has no labels: name none"):
        conditions.asked("0")


@pytest.mark.parametrize("text", ["0-9999999999", "4", "\u00b2", "1-\u0663", "1--2", "x", "99999999999999999999"])
def test_no_such_classes(text):
    with pytest.raises(UserError, match=r"^classes"):
        LabelConditions(4).asked(text)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file"),
        ("1\n2\n", "has 2 lines: write one for each class of the teacher, 3"),
        ("", "has 0 lines"),
        ("1\n-2\n3", "line 2 is '-2': write the images of a class, a number"),
        ("1\n\n3", "line 2 is ''"),
        ("1\n2\n3.5", r"line 3 is '3\.5'"),
        ("1\n2\n" + "9" * 1000, "line 3 is '99999"),
        ("0\n0\n0\n", "add up to 0: use 1 to 2147483647"),
        ("9999999999\n2\n3\n", "add up to 10000000004: use 1 to 2147483647"),
    ],
)
def test_a_file_of_counts_that_is_none(tmp_path, content, problem):
    if content is not None:
        (tmp_path / "counts.txt").write_text(content)
    with pytest.raises(UserError, match=problem) as caught:
        read_counts(str(tmp_path / "counts.txt"), 3)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_file_of_counts(tmp_path):
    (tmp_path / "counts.txt").write_text("732\r\n 0\n1300\n\n")
    assert read_counts(str(tmp_path / "counts.txt"), 3) == [732, 0, 1300]


class Source(list):
    name = "images in a.zip"

    def __init__(self, classes):
        self.classes = classes


def test_real_images_are_of_the_teachers_classes():
    for classes in (None, 0, 3):
        LabelConditions(0).check_pairs(Source(classes))
    assert LabelConditions(0).read([2, 0]).tolist() == [-1, -1]
    LabelConditions(3).check_pairs(Source(3))
    for classes, problem in {
        None: "real.source has images in a.zip, with captions: the teacher needs 3 classes",
        0: "real.source has images in a.zip, with no labels: the teacher needs 3 classes",
        4: "with labels of 4 classes, and the teacher has 3: they must be the same ones",
        2: "with labels of 2 classes, and the teacher has 3: they must be the same ones",
    }.items():
        with pytest.raises(UserError, match=problem):
            LabelConditions(3).check_pairs(Source(classes))
    with pytest.raises(UserError, match="without captions, which the teacher needs"):
        PromptConditions((), (), dict).check_pairs(Source(3))
    PromptConditions((), (), dict).check_pairs(Source(None))
