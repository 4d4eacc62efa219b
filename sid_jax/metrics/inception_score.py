"""Inception score (Salimans et al. 2016, arXiv 1606.03498): are images clear, and of all classes."""

import itertools
from typing import NamedTuple

import numpy as np

SPLITS = 10


class InceptionScore(NamedTuple):
    """A score, 1 or more; higher is better.

    Attributes:
      mean: of the splits.
      std: of the splits, as that of a population.
    """

    mean: float
    std: float


def inception_score(logits: np.ndarray, splits: int = SPLITS) -> InceptionScore:
    """exp of the mean KL divergence of p(class | image) from p(class), over consecutive parts of the images.

    The value depends on the number of images and on their order: compare only values that share both. SiD and SiDA take
    images in the order in which they were made, torch-fidelity shuffles them first.

    Args:
      logits: `[N, classes]`, those without the bias of the last layer.
      splits: how many parts.

    Raises:
      ValueError: there are fewer images than parts.
    """
    count = len(logits)
    if count < splits:
        raise ValueError(f"{count} images are too few for {splits} splits")
    edges = [count * split // splits for split in range(splits + 1)]
    scores = [_of_split(logits[first:last]) for first, last in itertools.pairwise(edges)]
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))


def _of_split(logits: np.ndarray) -> float:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    p = np.exp(log_p)
    # A class that no image of the split can be adds nothing to the sum: 0 log 0 is 0.
    marginal = p.mean(0)
    log_marginal = np.log(marginal, out=np.zeros_like(marginal), where=marginal > 0)
    return float(np.exp((p * (log_p - log_marginal)).sum(1).mean()))
