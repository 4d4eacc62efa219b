"""The feature networks that the metrics of a protocol need, opened once, and what they see as instruments."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from sid_jax.errors import UserError
from sid_jax.evaluation.batch import Batch, Change
from sid_jax.evaluation.clip_features import ClipScore
from sid_jax.evaluation.clip_variants import VARIANTS
from sid_jax.evaluation.features import InceptionFeatures, open_inception
from sid_jax.evaluation.loop import Instrument
from sid_jax.evaluation.protocols import HostTransform, Measure, Protocol
from sid_jax.evaluation.references import Reference, check_made, made_with, pictures_in
from sid_jax.evaluation.sources import MOST_AT_A_TIME
from sid_jax.evaluation.statistics import (
    Features,
    FrechetToReference,
    MeanScore,
    Statistic,
    inception_score_of,
    precision_recall_to,
)
from sid_jax.evaluation.transforms import centre_crop, lanczos


class FeatureNetworks:
    """Inception and CLIP, as far as the metrics need them.

    Args:
      measures: the metrics.
      inception: the file of its weights; empty: the released ones.
      clip: folder or hub id of the CLIP model; empty: that of the metric's name.
      mesh: the devices, all of which have the whole networks.

    Attributes:
      sha256: of each network, by its name.
      released: whether Inception is the released one; None: it can't be told.

    Raises:
      UserError: a network can't be opened.
    """

    def __init__(self, measures: Sequence[Measure], inception: str, clip: str, mesh: jax.sharding.Mesh):
        self.mesh, self.sha256, self.released = mesh, dict[str, str](), None
        self._inception, self._clip = dict[str, InceptionFeatures](), dict[str, ClipScore]()
        variants = dict.fromkeys(each.variant for each in measures if each.network == "inception")
        if variants:
            network = open_inception(inception)
            self.sha256["inception"], self.released = network.sha256, network.released
            self._inception = {variant: InceptionFeatures(network, variant, mesh) for variant in variants}
        scores = dict.fromkeys(each.variant for each in measures if each.network == "clip")
        if clip and len({VARIANTS[variant].network for variant in scores}) > 1:
            raise UserError(
                f"{clip}: one place for the networks of {', '.join(scores)}, which are different: leave it out, or "
                "measure them one at a time"
            )
        for variant in scores:
            score = self._clip[variant] = ClipScore(clip, variant, mesh)
            self.sha256[variant] = score.component.digest()

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
            look = self._inception_look(variant) if network == "inception" else self._clip_look(variant)
            change = change_of(protocol.transform) if transformed else None
            statistics = tuple(_statistic(each, references, reals) for each in some)
            instruments.append(Instrument(look, statistics, change))
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
                look, batch = self._inception[each.variant], MOST_AT_A_TIME * self.mesh.size
                pools = [look(pictures)[0] for pictures in pictures_in(files[each.name], batch)]
                found[each.name] = np.concatenate(pools)
        return found

    def _inception_look(self, variant: str) -> Any:
        features = self._inception[variant]

        def look(batch: Batch, asked: Sequence[Any] | None) -> Features:
            pool, logits = features(batch.on_devices())
            return {"pool": pool, "logits": logits}

        return look

    def _clip_look(self, variant: str) -> Any:
        score = self._clip[variant]

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
    return precision_recall_to(real, measure.values)
