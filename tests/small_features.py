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

WIDTH = 6


class SmallFeatures:
    """Called as `InceptionFeatures` is: `few_numbers` of images, computed on the devices, features and logits alike.

    calls: how many images each call was of.
    fails_at: the call that is interrupted; None: none is.
    """

    width = WIDTH
    calls = ()
    fails_at = None

    def __init__(self, network, variant, mesh):
        self._program = jax.jit(lambda images: few_numbers(images, jnp), out_shardings=meshes.replicated(mesh))

    def __call__(self, images):
        if len(self.calls) == self.fails_at:
            raise KeyboardInterrupt
        self.calls.append(len(images))
        found = np.asarray(self._program(images))
        return found, found


def few_numbers(images, np):
    """Of images `[B, H, W, 3]`, by NumPy or JAX: sums of whole numbers, which are the same in any order."""
    whole = images.astype("int32")
    half = images.shape[1] // 2
    sums = whole[:, :half].sum((1, 2)), np.square(whole[:, half:] // 16).sum((1, 2))
    return np.concatenate(sums, axis=-1).astype("float32") / 2**20


@contextlib.contextmanager
def in_place_of_inception(fails_at=None):
    """A context in which the small network is Inception, as if it had not been called before."""
    opened = SimpleNamespace(params=None, sha256="5" * 64, released=None)

    def open_inception(place):
        return opened

    with (
        mock.patch.multiple(networks, open_inception=open_inception, InceptionFeatures=SmallFeatures),
        mock.patch.dict(request.WIDTHS, inception=WIDTH),
    ):
        SmallFeatures.calls, SmallFeatures.fails_at = [], fails_at
        yield


def write_small_reference(path, count=200, **about):
    """Statistics of numbers, with 40 features, as those of real images."""
    features = np.random.default_rng(1).normal(size=(count, WIDTH)).astype(np.float32)
    moments = BlockedMoments(WIDTH)
    moments.add(features, np.arange(count))
    write_reference(path, moments, about, features[:40])
    return path
