"""The feature networks that the metrics of a protocol need, opened once, and what they see as instruments."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from sid_jax.errors import UserError
from sid_jax.evaluation.batch import Batch, Change
from sid_jax.evaluation.clip_features import ClipScore
from sid_jax.evaluation.clip_variants import VARIANTS
from sid_jax.evaluation.dinov2_features import NETWORK, Dinov2Features
from sid_jax.evaluation.features import InceptionFeatures, open_inception
from sid_jax.evaluation.loop import Instrument
from sid_jax.evaluation.protocols import HostTransform, Measure, Protocol
from sid_jax.evaluation.references import Reference, check_made, made_with, pictures_in
from sid_jax.evaluation.request import NETWORKS, WIDTHS
from sid_jax.evaluation.sources import MOST_AT_A_TIME
from sid_jax.evaluation.statistics import (
    Features,
    FrechetToReference,
    MeanScore,
    Statistic,
    inception_score_of,
    kernel_distance_to,
    precision_recall_to,
)
from sid_jax.evaluation.transforms import centre_crop, lanczos
from sid_jax.runtime.devices import mesh as meshes

Look = Callable[[Batch, Sequence[Any] | None], Features]
"""Images, and what each is of -> features; see `Instrument`."""


class FeatureNetworks:
    """Inception, DINOv2 and CLIP, as far as the metrics need them.

    Args:
      measures: the metrics.
      places: where networks are, by the names of `NETWORKS`: the file of Inception's weights, folders or hub ids of the
        others; empty or none: the released ones, of CLIP that of the metric's name.
      mesh: the devices, on all of which the networks run.

    Attributes:
      sha256: of each network, by its name.
      released: whether Inception is the released one; None: it can't be told.

    Raises:
      UserError: a network can't be opened.
    """

    def __init__(self, measures: Sequence[Measure], places: Mapping[str, str], mesh: jax.sharding.Mesh):
        self.mesh, self.sha256 = mesh, dict[str, str]()
        self.released: bool | None = None
        self._looks, self._widths = dict[tuple[str, str], Look](), dict[str, int]()
        variants = {network: list(dict.fromkeys(each.variant for each in measures if each.network == network))
                    for network in NETWORKS}  # fmt: skip
        if variants["inception"]:
            self._open_inception(places.get("inception", ""), variants["inception"])
        if variants["dinov2"]:
            self._open_dinov2(places.get("dinov2", ""), variants["dinov2"])
        self._open_clip(places.get("clip", ""), variants["clip"])

    def _open_inception(self, place: str, variants: Sequence[str]) -> None:
        network = open_inception(place)
        self.sha256["inception"], self.released = network.sha256, network.released
        for variant in variants:
            features = InceptionFeatures(network, variant, self.mesh)
            self._looks["inception", variant] = InceptionLook(features)
            self._widths["inception"] = features.width

    def _open_dinov2(self, place: str, variants: Sequence[str]) -> None:
        features = Dinov2Features(place, self.mesh)
        if features.width != WIDTHS["dinov2"]:
            raise UserError(
                f"{features.component.where}: its features have {features.width} numbers, and those of fd_dinov2 "
                f"{WIDTHS['dinov2']}: name {NETWORK}, or a copy of it"
            )
        self.sha256["dinov2"], self._widths["dinov2"] = features.component.digest(), features.width

        def look(batch: Batch, asked: Sequence[Any] | None) -> Features:
            return {"pool": features.measure(batch.changed(features.change).on_devices())}

        self._looks.update({("dinov2", variant): look for variant in variants})

    def _open_clip(self, place: str, variants: Sequence[str]) -> None:
        if place and len({VARIANTS[variant].network for variant in variants}) > 1:
            raise UserError(
                f"{place}: one place for the networks of {', '.join(variants)}, which are different: leave it out, or "
                "measure them one at a time"
            )
        for variant in variants:
            score = ClipScore(place, variant, self.mesh)
            self.sha256[variant] = score.component.digest()
            self._looks["clip", variant] = _clip_look(score)

    def look(self, measure: Measure) -> Look:
        """What sees the images of a metric."""
        return self._looks[measure.network, measure.variant]

    def width(self, measure: Measure) -> int:
        """Numbers of a feature of a metric."""
        return self._widths[measure.network]

    def instruments(
        self, protocol: Protocol, measures: Sequence[Measure], references: Mapping[str, Reference], reals: "Reals"
    ) -> list[Instrument]:
        """What measures images, with nothing added up yet; metrics that need the same features share them.

        Raises:
          UserError: as of `check_references`.
        """
        self.check_references(protocol, measures, references)
        groups: dict[tuple[str, str, bool], list[Measure]] = {}
        for each in measures:
            groups.setdefault((each.network, each.variant, each.transformed), []).append(each)
        instruments = []
        for (network, variant, transformed), some in groups.items():
            change = change_of(protocol.transform) if transformed else None
            statistics = tuple(_statistic(each, references, reals) for each in some)
            instruments.append(Instrument(self._looks[network, variant], statistics, change))
        return instruments

    def check_references(
        self, protocol: Protocol, measures: Sequence[Measure], references: Mapping[str, Reference]
    ) -> None:
        """Checks that references are of the features that a protocol measures, as far as their files say.

        Raises:
          UserError: one is of another network's features, or of images that were prepared in another way.
        """
        for each in measures:
            if each.name in references:
                made = made_with(protocol, each, self.sha256[each.network])
                check_made(references[each.name], made, f"the reference of {each.name}")

    def real_features(self, measures: Sequence[Measure], files: Mapping[str, str]) -> "Reals":
        """Pooled features of the pictures in the files of references that have pictures and no features, by metric."""
        found: Reals = {}
        for each in measures:
            if each.name in files:
                look, size = self._looks[each.network, each.variant], MOST_AT_A_TIME * self.mesh.size
                pools = []
                for pictures in pictures_in(files[each.name], size):
                    rows = np.minimum(meshes.local_rows(size, self.mesh), len(pictures) - 1)
                    batch = Batch(0, len(pictures), self.mesh, host=list(pictures[rows]), size=size)
                    pools.append(look(batch, None)["pool"][: len(pictures)])
                found[each.name] = np.concatenate(pools)
        return found


class InceptionLook:
    """Images to Inception's features. Those of one host may differ in size: then each size is looked at alone."""

    def __init__(self, features: InceptionFeatures) -> None:
        self._features = features

    def __call__(self, batch: Batch, asked: Sequence[Any] | None) -> Features:
        sizes = batch.sizes()
        if len(sizes) == 1:
            return self._named(batch.on_devices())
        if jax.process_count() > 1:
            (height, width), (other_height, other_width), *_ = sizes
            raise UserError(
                f"images of {width} x {height} and of {other_width} x {other_height} pixels, which several processes "
                "can't measure together: start one"
            )
        images = batch.on_host()
        found: dict[str, np.ndarray] = {}
        for size in sizes:
            rows = [row for row, image in enumerate(images) if image.shape[:2] == size]
            for name, values in self._named(np.stack([images[row] for row in rows])).items():
                found.setdefault(name, np.zeros((batch.size, values.shape[1]), np.float32))[rows] = values
        return found

    def _named(self, images: np.ndarray | jax.Array) -> Features:
        pool, logits = self._features(images)
        return {"pool": pool, "logits": logits}


def _clip_look(score: ClipScore) -> Look:
    def look(batch: Batch, asked: Sequence[Any] | None) -> Features:
        assert asked is not None, "pictures without captions are refused before"
        return {"score": score.measure(batch.changed(score.change).on_devices(), asked)}

    return look


Reals = dict[str, np.ndarray]
"""Features of real pictures, `[K, D]`, by the name of the metric that is of them."""


@functools.cache
def change_of(transform: HostTransform | None) -> Change | None:
    """What a protocol does to the bytes of an image on the host; None: nothing. The same transform is one function."""
    if transform is None:
        return None
    offset, size = transform.offset, transform.size
    return lambda image: lanczos(centre_crop(image, offset), size)


def _statistic(measure: Measure, references: Mapping[str, Reference], reals: Reals) -> Statistic:
    if measure.statistic == "mean":
        return MeanScore(measure.name)
    if measure.statistic == "is":
        return inception_score_of(measure.values)
    reference = references[measure.name]
    if measure.statistic == "fid":
        return FrechetToReference(measure.name, reference.statistics)
    real = reals.get(measure.name, reference.features)
    assert real is not None, "a reference without features or pictures is refused before"
    if measure.statistic == "kid":
        return kernel_distance_to(real, measure.values)
    return precision_recall_to(real, measure.values)
