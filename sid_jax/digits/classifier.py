"""Training the metric network of the digits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.scipy.ndimage import map_coordinates

from sid_jax.digits.fit import Schedule, fit
from sid_jax.digits.metric import LARGEST, DigitClassifier, DigitsMetric, enlarged
from sid_jax.errors import UserError
from sid_jax.metrics.frechet import frechet_distance, statistics
from sid_jax.sid import key_of


def train_metric(pictures: np.ndarray, labels: np.ndarray, *, deform: float, seed: int, **options: Any) -> DigitsMetric:
    """A classifier of the pictures, and the statistics of its features of them.

    It is trained on copies that are deformed, and then shifted by up to two pixels of 32. A tenth of the pictures is
    held out to say how good it is.

    Args:
      pictures: uint8 `[N, H, W, 3]`, of a resolution that `DigitsMetric` takes.
      labels: `[N]`, 0 to 9.
      deform: how much copies are deformed, see `deformed`.
      seed: of the initial parameters and all draws.
      **options: those of `fit.Schedule`.
    """
    graph, params = nnx.split(DigitClassifier(rngs=nnx.Rngs(key_of(seed))))
    resolution = pictures.shape[1]

    def loss(params: Any, key: jax.Array, batch: Any) -> jax.Array:
        images, labels = batch
        images = images / 127.5 - 1
        if deform:
            images = deformed(jax.random.fold_in(key, 1), images, deform)
        shifts = jax.random.randint(key, (len(labels), 2), -2, 3, jnp.int32)
        images = enlarged(images, LARGEST // resolution)
        images = jax.vmap(lambda image, shift: jnp.roll(image, shift, (0, 1)))(images, shifts)
        logits = nnx.merge(graph, params)(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    held_out = np.arange(len(labels)) % 10 == 0
    data = (jnp.asarray(pictures[~held_out]), jnp.asarray(labels[~held_out]))
    model = nnx.merge(graph, fit("classifier", loss, params, data, Schedule(**options), seed=seed))
    features, found = DigitsMetric(model, None, resolution=resolution).features_and_digits(pictures)
    right = found == labels
    print(f"classifier: accuracy {right.mean():.4f}, on held-out pictures {right[held_out].mean():.4f}")
    return DigitsMetric.of(model, features, resolution)


def deformed(key: jax.Array, images: jax.Array, most: float) -> jax.Array:
    """Images turned, sheared and stretched about their centres, each in its own way.

    Args:
      key: of the draws.
      images: `[B, H, W, C]`, in [-1, 1]; what comes in from outside is -1.
      most: the entries of each 2x2 matrix, by which places change, are those of the identity and up to this more or
        less, drawn uniformly.
    """
    count, height, width, channels = images.shape
    centre = jnp.array([height - 1, width - 1]) / 2
    places = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), axis=-1) - centre
    matrices = jnp.eye(2) + jax.random.uniform(key, (count, 2, 2), jnp.float32, -most, most)

    def at(image: jax.Array, matrix: jax.Array) -> jax.Array:
        rows, columns = jnp.moveaxis(places @ matrix.T + centre, -1, 0)
        planes = [map_coordinates(image[..., c], [rows, columns], order=1, cval=-1.0) for c in range(channels)]
        return jnp.stack(planes, axis=-1)

    return jax.vmap(at)(images, matrices)


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
