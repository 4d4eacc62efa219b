"""Training the metric network of the digits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sid_jax.digits.fit import Schedule, fit
from sid_jax.digits.metric import LARGEST, DigitClassifier, DigitsMetric, enlarged
from sid_jax.errors import UserError
from sid_jax.metrics.frechet import frechet_distance, statistics
from sid_jax.sid import key_of


def train_metric(pictures: np.ndarray, labels: np.ndarray, *, seed: int, **options: Any) -> DigitsMetric:
    """A classifier of the pictures, and the statistics of its features of them.

    It is trained on copies shifted by up to two pixels. A tenth of the pictures is held out to say how good it is.

    Args:
      pictures: uint8 `[N, H, W, 3]`, of a resolution that `DigitsMetric` takes.
      labels: `[N]`, 0 to 9.
      seed: of the initial parameters and all draws.
      **options: those of `fit.Schedule`.
    """
    graph, params = nnx.split(DigitClassifier(rngs=nnx.Rngs(key_of(seed))))

    def loss(params: Any, key: jax.Array, batch: Any) -> jax.Array:
        images, labels = batch
        shifts = jax.random.randint(key, (len(labels), 2), -2, 3, jnp.int32)
        images = jax.vmap(lambda image, shift: jnp.roll(image, shift, (0, 1)))(images / 127.5 - 1, shifts)
        logits = nnx.merge(graph, params)(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    held_out = np.arange(len(labels)) % 10 == 0
    resolution = pictures.shape[1]
    seen = enlarged(pictures[~held_out], LARGEST // resolution)
    data = (jnp.asarray(seen), jnp.asarray(labels[~held_out]))
    model = nnx.merge(graph, fit("classifier", loss, params, data, Schedule(**options), seed=seed))
    features, found = DigitsMetric(model, None, resolution=resolution).features_and_digits(pictures)
    right = found == labels
    print(f"classifier: accuracy {right.mean():.4f}, on held-out pictures {right[held_out].mean():.4f}")
    return DigitsMetric.of(model, features, resolution)


def measure_real(metric: DigitsMetric, pictures: np.ndarray) -> DigitsMetric:
    """The same metric, with new features of the pictures that its reference statistics are of.

    Raises:
      UserError: the pictures are others.
    """
    features, _ = metric.features_and_digits(pictures)
    if metric.reference is None:
        raise ValueError("a metric without reference statistics has none to compare with")
    distance = frechet_distance(statistics(features), metric.reference)
    if distance > 1e-3:
        raise UserError(
            f"config key data: these are not the metric's pictures; they are at a distance of {distance:.3g}"
        )
    model = nnx.merge(metric.graph, metric.params)
    return DigitsMetric(model, metric.reference, DigitsMetric.of(model, features).real, metric.resolution)
