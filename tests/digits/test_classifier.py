"""Features of real pictures for a metric network that is there already."""

import numpy as np
import pytest
from flax import nnx

from sid_jax.digits.classifier import measure_real
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
