"""Statistics of real images by a protocol: what its Frechet distance, precision and recall compare with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from sid_jax.data.sources.pictures import Pictures
from sid_jax.evaluation.batch import Change
from sid_jax.evaluation.loop import Instrument, add_up
from sid_jax.evaluation.networks import FeatureNetworks, change_of
from sid_jax.evaluation.protocols import Measure, Protocol
from sid_jax.evaluation.references import made_with, write_reference
from sid_jax.evaluation.saved import SavedMeasurement
from sid_jax.evaluation.sources import StoredImages
from sid_jax.evaluation.statistics import Features
from sid_jax.evaluation.transforms import patch_299
from sid_jax.metrics.moments import BlockedMoments, Estimate
from sid_jax.runtime.devices import processes

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class RealImages:
    """What statistics are of, and where they are written.

    Attributes:
      pictures: the images.
      place: where they are, as the user wrote it.
      protocol: whose transform they are given.
      measure: the metric of it that will compare with them.
      features: of so many images features are kept, for precision and recall, or the kernel distance.
      out: an .npz file.
    """

    pictures: Pictures
    place: str
    protocol: Protocol
    measure: Measure
    features: int
    out: Path


def measure_real_images(images: RealImages, networks: FeatureNetworks, batch: int) -> None:
    """Writes the statistics of all images, which are in memory a batch at a time.

    Of several processes all call this. The first one adds up; every few minutes it saves what it has beside the file,
    and goes on from there when the same command is run again.

    Args:
      images: of what, and where to.
      networks: that of the metric, open.
      batch: images that a device looks at together.

    Raises:
      UserError: an image can't be used, or the images differ in size where the protocol does not make them alike.
    """
    mesh, sha256 = networks.mesh, networks.sha256[images.measure.network]
    about = made_with(images.protocol, images.measure, sha256) | {
        "protocol": images.protocol.name,
        "metric": images.measure.name,
        "images": images.place,
        "images_sha256": images.pictures.digest(),
    }
    count = len(images.pictures.names)
    key = {name: text for name, text in about.items() if name != "images"} | {"kept": images.features}
    saved = SavedMeasurement(images.out.parent, key) if processes.is_first() else None
    alike, change = _prepared(images.protocol, images.measure)
    source = StoredImages(images.pictures, count, None, batch * mesh.size, mesh, same_size=alike)
    real = _RealFeatures(networks.width(images.measure), _spread(count, images.features))
    add_up(source, [Instrument(networks.look(images.measure), (real,), change)], saved, name="measuring")
    if saved is not None:
        write_reference(images.out, real.moments, about, real.kept())
        saved.forget()


def _prepared(protocol: Protocol, measure: Measure) -> tuple[bool, Change | None]:
    """Whether images must be of one size, and what is done to each on the host."""
    if measure.variant == "patch":
        # Of real images, which differ in size, the middle is cut out on the host: there it makes them alike.
        return False, _middle
    change = change_of(protocol.transform) if measure.transformed else None
    return change is None, change


def _middle(image: np.ndarray) -> np.ndarray:
    return np.asarray(patch_299(cast(Any, image[None]))[0])  # it only cuts, and so NumPy's array remains one


class _RealFeatures:
    """The sums of features, and the features of some images, which `Kept` would have of all."""

    names: tuple[str, ...] = ()
    least = 2

    def __init__(self, width: int, chosen: np.ndarray) -> None:
        self.moments = BlockedMoments(width)
        self._chosen, self._kept = chosen, [np.zeros((0, width), np.float16)]

    def kept(self) -> np.ndarray | None:
        """Features of the chosen images; None where none is."""
        return np.concatenate(self._kept) if len(self._chosen) else None

    def add(self, features: Features, rows: np.ndarray) -> None:
        self.moments.add(features["pool"], rows)
        self._kept.append(features["pool"][np.isin(rows, self._chosen)].astype(np.float16))

    def arrays(self) -> Arrays:
        self._kept = [np.concatenate(self._kept)]
        return {**self.moments.arrays(), "kept": self._kept[0]}

    def restore(self, arrays: Arrays) -> None:
        kept = arrays.pop("kept", np.zeros(()))
        moments = BlockedMoments.from_arrays(arrays)
        if moments.width != self.moments.width or kept.shape[1:] != (moments.width,) or kept.dtype != np.float16:
            raise ValueError("not the features of real images")
        self.moments, self._kept = moments, [kept]

    def values(self) -> dict[str, Estimate]:
        return {}


def _spread(count: int, chosen: int) -> np.ndarray:
    """So many rows, evenly spread over all: images of one class are often neighbours."""
    return np.arange(chosen) * count // max(chosen, 1)
