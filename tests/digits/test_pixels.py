"""The pretrain command makes a pixel teacher that our commands open, and a metric of its small pictures."""

import numpy as np
import pytest

from sid_jax import pretrain, sample
from sid_jax.data.images import read_rgb
from sid_jax.data.sources.image_zip import ImageZip
from sid_jax.digits.metric import DigitsMetric
from sid_jax.digits.pixels import reduced
from sid_jax.errors import UserError
from sid_jax.families.open import open_source, open_teacher


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pixels")
    rng = np.random.default_rng(0)
    np.savez(folder / "d.npz", images=rng.integers(0, 256, (100, 28, 28), np.uint8), labels=np.arange(100) % 10)
    pretrain.main([
        "--config=configs/edm_digits_teacher.py",
        f"--out={folder / 'out'}",
        f"--config.data={folder / 'd.npz'}",
        "--config.network.resolution=8",
        "--config.network.channels=8",
        "--config.network.multiples=(1,)",
        *(f"--config.{part}.steps=2" for part in ("classifier", "diffusion")),
        *(f"--config.{part}.batch=4" for part in ("classifier", "diffusion")),
        "--config.evaluate.samples=100",
        "--config.evaluate.steps=(1, 2)",
    ])  # fmt: skip
    return folder / "out"


def test_the_teacher_is_opened_and_sampled(made, tmp_path):
    teacher = open_teacher(open_source(str(made / "edm_digits")), "edm")
    assert teacher.conditions.count == 10 and teacher.space.shape(8) == (8, 8, 1)
    assert teacher.augment is not None and teacher.denoiser.config.network.dropout == 0
    sample.main([
        f"--model={made / 'edm_digits'}", "--classes=0-9", "--n=1", "--steps=2", f"--out={tmp_path / 'pictures'}",
    ])  # fmt: skip
    assert len(list((tmp_path / "pictures").glob("0*.png"))) == 10


def test_the_metric_is_of_its_pictures(made):
    metric = DigitsMetric.load(made / "edm_digits_metric")
    assert metric.resolution == 8
    pictures = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 3), np.uint8)
    _, found = metric.features_and_digits(pictures)
    assert metric(pictures, list(found))["prompt_accuracy"] == 1


def test_its_pictures_are_real_images_with_labels(made):
    source = ImageZip(str(made / "edm_digits_images.zip"))
    assert len(source) == 100 and source.classes == 10
    pair = source[7]
    picture = read_rgb(pair.image, 64)
    assert pair.conditions == (7,) and picture.size == (8, 8)


def test_the_card_has_a_row_for_each_number_of_steps(made):
    card = (made / "edm_digits/README.md").read_text()
    assert "| 1 |" in card and "| 2 |" in card


def test_pictures_are_reduced_by_means():
    pictures = np.zeros((1, 4, 4, 1), np.uint8)
    pictures[0, :2, 2:, 0] = [[10, 20], [30, 41]]
    np.testing.assert_array_equal(reduced(pictures, 2)[0, ..., 0], [[0, 25], [0, 0]])


def test_another_model_is_an_error(tmp_path):
    with pytest.raises(UserError, match="config key model is 'gan': use one of stable_diffusion, edm"):
        pretrain.main(["--config=configs/edm_digits_teacher.py", f"--out={tmp_path}", "--config.model=gan"])
