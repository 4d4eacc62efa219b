"""What the metric network of the digits learns from, and features of real pictures for one that is there already."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sid_jax.digits.classifier import deformed, measure_real
from sid_jax.digits.metric import DigitClassifier, DigitsMetric
from sid_jax.errors import UserError


def test_real_features_are_of_the_pictures_of_the_reference_and_of_no_others():
    pictures = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)
    classifier = DigitClassifier(rngs=nnx.Rngs(0))
    metric = DigitsMetric.of(classifier, DigitsMetric(classifier, None).features_and_digits(pictures)[0])
    again = measure_real(DigitsMetric(classifier, metric.reference), pictures)
    np.testing.assert_array_equal(again.real, metric.real)
    assert again.reference is metric.reference
    with pytest.raises(UserError, match="these are not the metric's pictures"):
        measure_real(metric, 255 - pictures)


def test_without_a_change_of_places_pictures_stay_as_they_are():
    images = jax.random.uniform(jax.random.key(0), (3, 6, 8, 2), minval=-1, maxval=1)
    np.testing.assert_allclose(deformed(jax.random.key(1), images, 0.0), images, atol=1e-6)


def test_each_picture_is_deformed_in_its_own_way_about_its_centre():
    blot = jnp.full((9, 9, 1), -1.0).at[4, 4].set(1.0).at[1, 1].set(1.0)
    found = np.asarray(deformed(jax.random.key(0), jnp.stack([blot] * 4), 0.3))
    np.testing.assert_allclose(found[:, 4, 4, 0], 1, atol=1e-6)
    assert len({picture.tobytes() for picture in found}) == 4
    np.testing.assert_array_equal(found, deformed(jax.random.key(0), jnp.stack([blot] * 4), 0.3))


def test_what_comes_in_from_outside_is_black():
    found = np.asarray(deformed(jax.random.key(0), jnp.ones((20, 8, 8, 3)), 0.3))
    assert found.min() == -1 and found.max() == 1
    np.testing.assert_array_equal(found[..., :1].repeat(3, axis=-1), found)
