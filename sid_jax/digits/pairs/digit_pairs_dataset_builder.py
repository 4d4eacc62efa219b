"""The builder; tensorflow_datasets wants it in a file of this name. Nothing else is needed to read what it writes."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from sid_jax.digits.prompts import prompts_of


class DigitPairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """32x32 RGB digits, each with one of the wordings that ask for it.

    Args:
      images: uint8 `[N, 32, 32, 3]`.
      labels: `[N]`, 0 to 9.
      **options: those of tensorflow_datasets' builders, such as `data_dir`.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, images: np.ndarray, labels: np.ndarray, **options: Any) -> None:
        self._examples = list(zip(images, labels.tolist(), strict=True))
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
            "caption": tfds.features.Text(),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, (image, label) in enumerate(self._examples):
            wordings = prompts_of(label)
            yield number, {"image": _png(image), "caption": wordings[number % len(wordings)], "label": label}


def _png(image: np.ndarray) -> bytes:
    """Encoded here, as tensorflow_datasets encodes arrays with TensorFlow."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
