"""Our metrics of given features against torch-fidelity's and clean-fid's."""

import warnings

import numpy as np
import pytest
import torch
from cleanfid.fid import frechet_distance as clean_frechet_distance
from torch_fidelity.metric_fid import fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from sid_jax.metrics.frechet import frechet_distance, statistics
from sid_jax.metrics.inception_score import inception_score
from sid_jax.metrics.kid import kernel_distance
from sid_jax.metrics.precision_recall import precision_recall


def features(seed, count, width=64, shift=0.0):
    """Positive, skewed and correlated, as Inception's are."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width)) / 8
    return np.maximum(rng.normal(size=(count, width)) @ mixing + rng.exponential(0.3, (count, width)) + shift, 0)


@pytest.mark.parametrize(("count", "tolerance"), [(500, 1e-6), (40, 1e-5)], ids=["whole", "singular"])
def test_frechet_distance(count, tolerance):
    real, generated = statistics(features(0, 500)), statistics(features(1, count, shift=0.1))
    found = frechet_distance(generated, real)
    stats = [{"mu": each.mean, "sigma": each.covariance} for each in (generated, real)]
    theirs = fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    with warnings.catch_warnings(action="ignore"):  # of an argument that scipy is about to drop
        clean = clean_frechet_distance(*generated, *real)
    assert found == pytest.approx(theirs, rel=tolerance) and found == pytest.approx(clean, rel=tolerance)


def test_inception_score():
    logits = np.random.default_rng(0).normal(size=(1003, 50)).astype(np.float32) * 4
    logits[:, 0] -= 1e3  # a class that no image is of: its probability is 0
    theirs = isc_features_to_metric(torch.tensor(logits[:, 1:]), shuffle=False)
    expected = theirs["inception_score_mean"], theirs["inception_score_std"]
    assert inception_score(logits[:, 1:]) == pytest.approx(expected, rel=1e-9)
    assert inception_score(logits) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance():
    real, generated = features(0, 700), features(1, 600, shift=0.05)
    theirs = kid_features_to_metric(
        torch.tensor(generated), torch.tensor(real), kid_subsets=5, kid_subset_size=200, verbose=False
    )
    expected = theirs["kernel_inception_distance_mean"], theirs["kernel_inception_distance_std"]
    assert kernel_distance(generated, real, subsets=5, subset_size=200) == pytest.approx(expected, rel=1e-6)


def test_precision_and_recall():
    real, generated = features(0, 300, 16).astype(np.float32), features(1, 400, 16, shift=0.2).astype(np.float32)
    theirs = prc_features_to_metric(torch.tensor(generated), torch.tensor(real), verbose=False)
    found = precision_recall(real, generated)
    assert round(found.precision * 400) == round(theirs["precision"] * 400) < 380
    assert round(found.recall * 300) == round(theirs["recall"] * 300) < 280


def test_too_few_images():
    with pytest.raises(ValueError, match="9 images are too few for 10 splits"):
        inception_score(np.zeros((9, 3)))
    with pytest.raises(ValueError, match="999 images are too few for subsets of 1000"):
        kernel_distance(np.zeros((999, 3)), np.zeros((1000, 3)))
