"""A feature network of a few numbers in the place of Inception, for tests of what is around it."""

import contextlib
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from sid_jax.evaluation import networks, request
from sid_jax.evaluation.references import write_reference
from sid_jax.metrics.moments import BlockedMoments
from sid_jax.runtime.devices import mesh as meshes

WIDTH = 8


class SmallFeatures:
    """Called as `InceptionFeatures` is: 8 sums of an image's 4 x 4 means."""

    seen = 0

    def __init__(self, network, variant, mesh):
        weights = np.random.default_rng(0).normal(size=(48, WIDTH + 16)).astype(np.float32)

        def features(images):
            batch, height, width, _ = images.shape
            means = images.astype(jnp.float32).reshape(batch, 4, height // 4, 4, width // 4, 3).mean((2, 4))
            return jnp.split(jnp.tanh(means.reshape(batch, 48) / 255 @ weights), [WIDTH], axis=1)

        self._features = jax.jit(features, out_shardings=meshes.replicated(mesh))

    def __call__(self, images):
        type(self).seen += len(images)
        return tuple(map(np.asarray, self._features(images)))


@contextlib.contextmanager
def in_place_of_inception():
    """A context in which the small network is Inception."""
    opened = SimpleNamespace(sha256="5" * 64, released=None)
    with (
        mock.patch.multiple(networks, open_inception=lambda place: opened, InceptionFeatures=SmallFeatures),
        mock.patch.object(request, "FEATURES", WIDTH),
    ):
        yield


def write_small_reference(path, count=200, **about):
    """Statistics of numbers, with 40 features, as those of real images."""
    features = np.random.default_rng(1).normal(size=(count, WIDTH)).astype(np.float32)
    moments = BlockedMoments(WIDTH)
    moments.add(features, np.arange(count))
    write_reference(path, moments, about, features[:40])
    return path
