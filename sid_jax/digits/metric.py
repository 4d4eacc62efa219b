"""The metric network of the digits: a small classifier, whose features give the Frechet distance."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from sid_jax.digits.prompts import digit_of
from sid_jax.errors import UserError
from sid_jax.metrics.frechet import Statistics, frechet_distance, statistics
from sid_jax.metrics.precision_recall import precision_recall
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.run.progress import following

FEATURES = 64
NETWORK_FILE, REFERENCE_FILE = "classifier.safetensors", "reference.safetensors"
FEATURES_FILE = "real_features.safetensors"
REAL_FEATURES = 2000  # that are kept for precision and recall: 256 KB
LARGEST = 32  # pixels: the side of what the classifier sees
_RESOLUTION = "resolution"  # in the metadata of the file of statistics; absent: what the classifier sees


class DigitClassifier(nnx.Module):
    """Three convolutions and a hidden layer: which digit a picture shows."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 16, (3, 3), strides=2, rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), strides=2, rngs=rngs)
        self.conv3 = nnx.Conv(32, 64, (3, 3), strides=2, rngs=rngs)
        self.hidden = nnx.Linear(4 * 4 * 64, FEATURES, rngs=rngs)
        self.out = nnx.Linear(FEATURES, 10, rngs=rngs)

    def features(self, images: jax.Array) -> jax.Array:
        """Images `[B, 32, 32, 3]` in [-1, 1] -> `[B, 64]`."""
        x = images.mean(-1, keepdims=True)
        for layer in (self.conv1, self.conv2, self.conv3):
            x = nnx.relu(layer(x))
        return nnx.relu(self.hidden(x.reshape(len(x), -1)))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images `[B, 32, 32, 3]` in [-1, 1] -> logits `[B, 10]`."""
        return self.out(self.features(images))


class DigitsMetric:
    """Frechet distance to the real digits, precision and recall, and prompt accuracy: the share of images that show
    what was asked for.

    Args:
      classifier: the network, trained.
      reference: statistics of its features of the real images.
      real: features of some of the real images, `[N, 64]`, for precision and recall.
      resolution: of the images that it takes, in pixels: 32, or a number that it is a multiple of. The classifier sees
        smaller ones enlarged, each pixel as a square.
    """

    def __init__(
        self,
        classifier: DigitClassifier,
        reference: Statistics | None,
        real: np.ndarray | None = None,
        resolution: int = LARGEST,
    ):
        if LARGEST % resolution:
            raise ValueError(f"{LARGEST} is no multiple of {resolution}")
        self.graph, self.params = nnx.split(classifier)
        self.reference, self.real, self.resolution = reference, real, resolution
        self._probe = jax.jit(functools.partial(_probe, self.graph, factor=LARGEST // resolution))

    def features_and_digits(self, images: np.ndarray, batch: int = 500) -> tuple[np.ndarray, np.ndarray]:
        """Features `[N, 64]` and predicted digits `[N]` of images uint8 `[N, H, W, 3]` of its resolution."""
        starts = following(
            range(0, len(images), batch), len(images), "measuring", size=lambda start: min(batch, len(images) - start)
        )
        parts = [self._probe(self.params, images[i : i + batch]) for i in starts]
        features, digits = zip(*parts, strict=True)
        return np.concatenate(features), np.concatenate(digits)

    def __call__(self, images: np.ndarray, asked: Sequence[str | int]) -> dict[str, float]:
        """`frechet_distance`, `precision`, `recall` and `prompt_accuracy` of images made for N prompts or digits.

        Images are uint8 `[N, H, W, 3]`. Precision and recall compare as many real features as there are, at most N,
        with the first as many of the images.
        """
        return self.values(*self.features_and_digits(images), asked)

    def looking_on(self, mesh: jax.sharding.Mesh) -> Callable[[jax.Array], tuple[np.ndarray, np.ndarray]]:
        """`features_and_digits` of images that are split over devices; every process has all of the result."""
        everywhere = meshes.replicated(mesh)
        params = meshes.place(self.params, everywhere)
        probe = functools.partial(_probe, self.graph, factor=LARGEST // self.resolution)
        compiled = jax.jit(probe, out_shardings=everywhere)

        def look(images: jax.Array) -> tuple[np.ndarray, np.ndarray]:
            features, digits = compiled(params, images)
            return np.asarray(features), np.asarray(digits)

        return look

    def values(self, features: np.ndarray, digits: np.ndarray, asked: Sequence[str | int]) -> dict[str, float]:
        """What `__call__` gives, from the features and the predicted digits of images made for N prompts or digits."""
        reference, real = self._of_real_images()
        count = min(len(features), len(real))
        shares = precision_recall(real[:count], features[:count])
        shown = [digit_of(each) if isinstance(each, str) else each for each in asked]
        wanted = np.array([-1 if digit is None else digit for digit in shown])
        return {
            "frechet_distance": frechet_distance(statistics(features), reference),
            "precision": shares.precision,
            "recall": shares.recall,
            "prompt_accuracy": float(np.mean(digits == wanted)),
        }

    def save(self, folder: Path) -> None:
        """Writes the network, the reference statistics and the features of real images."""
        folder.mkdir(parents=True, exist_ok=True)
        flat = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(self.params)}
        save_file(flat, folder / NETWORK_FILE)
        save_file(self._of_real_images()[0]._asdict(), folder / REFERENCE_FILE, {_RESOLUTION: str(self.resolution)})
        self.save_real(folder)

    def save_real(self, folder: Path) -> None:
        """Writes the features of real images, and nothing else."""
        save_file({"real": self._of_real_images()[1].astype(np.float16)}, folder / FEATURES_FILE)

    def _of_real_images(self) -> tuple[Statistics, np.ndarray]:
        if self.reference is None or self.real is None:
            raise ValueError("this metric knows no real images: it gives features only")
        return self.reference, self.real

    @classmethod
    def load(cls, folder: Path, real: bool = True) -> "DigitsMetric":
        """Reads what `save` wrote; without `real` no features of real images, as before there are any.

        Raises:
          UserError: a file is missing or is not such a file.
        """
        classifier: DigitClassifier = nnx.eval_shape(lambda: DigitClassifier(rngs=nnx.Rngs(0)))
        try:
            tensors = load_file(folder / NETWORK_FILE)
            with safe_open(folder / REFERENCE_FILE, "numpy") as file:
                reference = Statistics(*map(file.get_tensor, Statistics._fields))
                resolution = int((file.metadata() or {}).get(_RESOLUTION, LARGEST))
            features = load_file(folder / FEATURES_FILE)["real"].astype(np.float32) if real else None
            state = nnx.state(classifier)
            for path, leaf in nnx.to_flat_state(state):
                leaf.set_value(jnp.asarray(tensors[".".join(map(str, path))]))
            nnx.update(classifier, state)
            return cls(classifier, reference, features, resolution)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{folder} is not the folder of a digits metric ({error})") from error

    @classmethod
    def of(cls, classifier: DigitClassifier, features: np.ndarray, resolution: int = LARGEST) -> "DigitsMetric":
        """The metric of a trained network and its features of all the real images, `[N, 64]`."""
        chosen = np.random.default_rng(0).permutation(len(features))[:REAL_FEATURES]
        return cls(classifier, statistics(features), features[chosen], resolution)


def enlarged(images: Any, factor: int) -> Any:
    """Images `[N, H, W, C]` of which each pixel has become a square of `factor` by `factor`."""
    return images.repeat(factor, axis=1).repeat(factor, axis=2) if factor > 1 else images


def _probe(graph: nnx.GraphDef[Any], params: Any, images: Any, factor: int) -> tuple[jax.Array, jax.Array]:
    model = nnx.merge(graph, params)
    features = model.features(enlarged(images, factor) / 127.5 - 1)
    return features, jnp.argmax(model.out(features), axis=-1)
