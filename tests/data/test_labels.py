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
    stream = conditions.stream(conditions.asked(None), 25, seed=3)
    for _ in range(5):
        both = [part.tolist() for part in next(stream).values()]
        assert both[0] != both[1] and both[0] != sorted(both[0])
        assert all(set(Counter(batch).values()) <= {2, 3} and len(set(batch)) == 10 for batch in both)
    # Over many batches that are smaller than the classes are many, too.
    found = Counter(drawn(conditions.stream(range(10), 3, seed=3), 2000))
    assert all(abs(count - 1200) < 150 for count in found.values())


def test_counted_classes_come_as_often_as_they_are_counted():
    labels = CountedLabels(range(4), [300, 0, 100, 2**50])
    assert set(drawn(LabelConditions(4).stream(labels, 8, seed=0), 4)) == {3}
    stream = LabelConditions(4).stream(CountedLabels(range(4), [30, 0, 10, 0]), 8, seed=1)
    for batch in (part.tolist() for _ in range(5) for part in next(stream).values()):
        assert Counter(batch) == {0: 6, 2: 2}


def test_large_batches_and_many_classes_are_drawn_at_once():
    stream = LabelConditions(1000).stream(range(1000), 8192, seed=0)
    assert set(Counter(next(stream)["fake"].tolist()).values()) == {8, 9}


def test_the_labels_follow_from_the_seed_and_hosts_share_them():
    def stream(seed, rows=None):
        return LabelConditions(50).stream(range(50), 8, seed, rows)

    assert drawn(stream(5), 3) == drawn(stream(5), 3)
    assert len({str(drawn(stream(seed), 3)) for seed in (5, 2**32 + 5, 2**63 + 5, 2**64 - 1)}) == 4
    alone, shares = stream(1), ([0, 7], [1, 2, 3, 4, 5, 6])
    hosts = [stream(1, rows) for rows in shares]
    for _ in range(3):
        whole, parts = next(alone), [next(host) for host in hosts]
        for name in ("fake", "generator"):
            for rows, part in zip(shares, parts, strict=True):
                np.testing.assert_array_equal(whole[name][rows], part[name])
    assert hosts[0].position() == hosts[1].position() == alone.position()


def test_a_position_goes_on_and_is_one_of_the_same_counts(caplog):
    def stream(counts):
        return LabelConditions(3).stream(CountedLabels(range(3), counts), 4, seed=5)

    whole = stream([5, 6, 7])
    drawn(whole, 6)
    position = json.loads(json.dumps(whole.position()))
    expected = drawn(whole, 5)
    other = stream([5, 6, 7])
    other.restore(position)
    assert drawn(other, 5) == expected
    with pytest.raises(UserError, match="the labels or their counts are not those that this run was started with"):
        stream([5, 7, 6]).restore(position)
    stream([5, 7, 6]).restore(position, force=True)
    assert "going on with other labels or counts" in caplog.text


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
        ("0\n0\n0\n", r"add up to 0: use 1 to 2\^53 in all"),
        ("9" * 16 + "\n2\n3\n", "line 1 is '9999"),
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
