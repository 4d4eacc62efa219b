"""The metric of the digits."""

import numpy as np
import pytest
from flax import nnx

from sid_jax.digits.metric import REAL_FEATURES, DigitClassifier, DigitsMetric
from sid_jax.errors import UserError


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def metric(pictures):
    classifier = DigitClassifier(rngs=nnx.Rngs(0))
    return DigitsMetric.of(classifier, DigitsMetric(classifier, None).features_and_digits(pictures)[0])


def test_accuracy_is_the_share_of_images_that_show_what_was_asked_for(metric, pictures):
    _, digits = metric.features_and_digits(pictures)
    right = [f"the digit {digit}" for digit in digits]
    assert metric(pictures, right)["prompt_accuracy"] == 1
    wrong = [f"the digit {(digit + 1) % 10}" for digit in digits[:15]] + right[15:]
    assert metric(pictures, wrong)["prompt_accuracy"] == 0.75
    assert metric(pictures, ["a cat"] * 60)["prompt_accuracy"] == 0


def test_the_distance_of_the_reference_images_is_zero(metric, pictures):
    assert metric(pictures, [""] * 60)["frechet_distance"] == pytest.approx(0, abs=1e-6)
    assert metric(255 - pictures // 2, [""] * 60)["frechet_distance"] > 1e-3


def test_batches_do_not_matter(metric, pictures):
    np.testing.assert_allclose(
        metric.features_and_digits(pictures)[0], metric.features_and_digits(pictures, batch=7)[0], rtol=1e-4, atol=1e-5
    )


def test_saved_and_loaded_it_is_the_same(metric, pictures, tmp_path):
    metric.save(tmp_path / "metric")
    back = DigitsMetric.load(tmp_path / "metric")
    found, expected = back(pictures, ["7"] * 60), metric(pictures, ["7"] * 60)
    assert found == pytest.approx(expected, abs=0.1) and found["frechet_distance"] == expected["frechet_distance"]


def test_the_reference_images_themselves_have_all_precision_and_recall(metric, pictures):
    found = metric(pictures, [""] * 60)
    assert (found["precision"], found["recall"]) == (1, 1)
    found = metric(np.repeat(pictures[:1], 60, axis=0), [""] * 60)
    assert (found["precision"], found["recall"]) == (1, pytest.approx(1 / 60, abs=1e-6))


def test_features_of_real_images_are_kept_in_part():
    features = np.arange(3 * REAL_FEATURES, dtype=np.float32)[:, None].repeat(2, 1)
    metric = DigitsMetric.of(DigitClassifier(rngs=nnx.Rngs(0)), features)
    assert metric.real.shape == (REAL_FEATURES, 2) and len(np.unique(metric.real[:, 0])) == REAL_FEATURES
    np.testing.assert_allclose(metric.reference.mean, features.mean(0), rtol=1e-4)


@pytest.mark.parametrize("name", ["classifier.safetensors", "reference.safetensors", "real_features.safetensors"])
def test_a_damaged_folder_is_an_error(metric, tmp_path, name):
    metric.save(tmp_path / "metric")
    (tmp_path / "metric" / name).write_bytes(b"nothing")
    with pytest.raises(UserError, match="is not the folder of a digits metric"):
        DigitsMetric.load(tmp_path / "metric")
