"""What a run with labels reads: counted labels, and real images with labels beside those of the fake update."""

import types
from collections import Counter

import numpy as np
import pytest
import toy_family
from PIL import Image

import sid_jax.config
from sid_jax import dataset
from sid_jax.errors import UserError
from sid_jax.experiment.streams import open_stream
from sid_jax.runtime.cli.settings import Setting
from sid_jax.sid import Gan
from sid_jax.teachers.conditions import LabelConditions
from sid_jax.teachers.space import PixelSpace

LABELS = {"labels.counts": Setting("", "a text file"), "real.label": Setting("", "feature of tfds")}
SECTION = toy_family.SECTION._replace(settings={**toy_family.SECTION.settings, **LABELS})


@pytest.fixture
def config(monkeypatch, tmp_path):
    """Of a run on images of 8 px, whose grey says their class, of which there are three."""
    toy_family.register(monkeypatch)
    monkeypatch.setitem(sid_jax.config.SECTIONS, "toy", SECTION)
    for number in range(7):
        folder = tmp_path / f"in/{'abc'[number % 3]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 8, 3), number % 3, np.uint8)).save(folder / f"{number}.png")
    dataset.main([f"--source={tmp_path / 'in'}", f"--out={tmp_path / 'data.zip'}", "--resolution=8"])
    c = sid_jax.config.default("toy")
    c.batch, c.real.source = 6, str(tmp_path / "data.zip")
    return c


def opened(config, gan, classes=3):
    teacher = types.SimpleNamespace(conditions=LabelConditions(classes), space=PixelSpace(8))
    return open_stream(config, gan, teacher, teacher.conditions.asked(None))[0]


def test_sida_asks_the_fake_update_for_the_labels_of_the_real_images(config):
    apart, together = (opened(config, Gan(lambda_d=1.0, form=form)) for form in ("map", "sida"))
    differ = False
    for _ in range(4):
        one, other = next(apart), next(together)
        for read in (one, other):
            np.testing.assert_array_equal(read["real"]["images"][:, 4, 4, 0], read["real"]["tokens"])
        np.testing.assert_array_equal(other["fake"], other["real"]["tokens"])
        np.testing.assert_array_equal(one["generator"], other["generator"])
        differ = differ or (one["fake"] != one["real"]["tokens"]).any()
    assert differ


def test_labels_come_as_a_file_counts_them(config, tmp_path):
    config.labels.counts = str(tmp_path / "counts.txt")
    (tmp_path / "counts.txt").write_text("10\n0\n20\n")
    assert Counter(next(opened(config, Gan()))["generator"].tolist()) == {0: 2, 2: 4}
    (tmp_path / "counts.txt").write_text("10\n0\n")
    with pytest.raises(UserError, match="has 2 lines: write one for each class of the teacher, 3"):
        opened(config, Gan())


def test_images_of_other_classes_than_the_teachers_are_refused(config):
    with pytest.raises(UserError, match="labels of 3 classes, and the teacher has 1000"):
        opened(config, Gan(lambda_d=1.0), classes=1000)
    without = next(opened(config, Gan(lambda_d=1.0, form="sida"), classes=0))
    assert set(without["fake"].tolist()) == set(without["generator"].tolist()) == {-1}
