"""What is to be measured by a protocol, checked before any model is opened: metrics, images, seeds and files."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sid_jax.data.prompts import read_prompt_file
from sid_jax.errors import UserError
from sid_jax.evaluation.dinov2_features import WIDTH
from sid_jax.evaluation.protocols import Measure, Protocol, protocol_named
from sid_jax.evaluation.references import Reference, read_reference
from sid_jax.metrics.kid import SUBSET_SIZE
from sid_jax.metrics.moments import BLOCKS
from sid_jax.models.inception import FEATURES
from sid_jax.runtime.storage.files import absolute
from sid_jax.sid import MOST_SEED

LEAST = 2 * BLOCKS  # images: the jackknife has no error of fewer
MOST = 10**7
NETWORKS = ("inception", "clip", "dinov2")
"""Feature networks whose place can be said."""
WIDTHS = {"inception": FEATURES, "dinov2": WIDTH}
"""Numbers of a feature of each network that references are of."""


class Prompts(NamedTuple):
    """Prompts of a file, one an image, and the file's SHA-256."""

    lines: list[str]
    sha256: str
    path: str


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes:
      protocol: by which.
      measures: its metrics that are wanted.
      samples: images.
      seeds: of the noise; each is a measurement of its own.
      references: of the metrics that have one, by their names.
      files: of the references.
      prompts: what the images are of; None: the protocol has none, or the images' own captions.
      dashes: what stands before the names of what was asked in errors.
    """

    protocol: Protocol
    measures: tuple[Measure, ...]
    samples: int
    seeds: tuple[int, ...]
    references: Mapping[str, Reference]
    files: Mapping[str, str]
    prompts: Prompts | None
    dashes: str = "--"

    @property
    def whole(self) -> bool:
        """Whether it is of as many images as the protocol, so that its numbers may have the protocol's name."""
        return self.samples == self.protocol.count

    def networks(self) -> set[str]:
        """The kinds of networks that it needs."""
        return {each.network for each in self.measures}


def requested(
    protocol: str,
    metrics: str = "",
    samples: int | None = None,
    seeds: Sequence[int] = (0,),
    references: Sequence[str] = (),
    prompts: str = "",
    dashes: str = "--",
) -> Request:
    """What flags or settings ask for.

    Args:
      protocol: its name.
      metrics: names, separated by commas; empty: all that the protocol has.
      samples: images; None: as many as the protocol has.
      seeds: of the noise.
      references: files, or METRIC=FILE.
      prompts: a file; empty: there is none.
      dashes: what stands before the names in errors: "--", or "config key evaluate.".

    Raises:
      UserError: they do not fit together, or a file can't be read.
    """
    chosen = protocol_named(protocol, f"{dashes}protocol")
    try:
        measures = chosen.chosen(metrics)
    except UserError as error:
        raise UserError(f"{dashes}metrics: {error}") from error
    count = chosen.count if samples is None else samples
    if not LEAST <= count <= MOST:
        raise UserError(f"{dashes}samples is {count}: use {LEAST} to {MOST}")
    files = _files_of(measures, references, f"{dashes}reference")
    if prompts and chosen.asked != "prompts":
        raise UserError(f"{dashes}prompts: protocol {chosen.name} has no prompts")
    found = {each.name: _read(each, files[each.name], f"{dashes}reference") for each in measures if each.reference}
    own = read_prompts_of(prompts) if prompts else None
    return Request(chosen, measures, count, tuple(seeds), found, files, own, dashes)


def check_fits(request: Request, networks: Mapping[str, str], *, generated: bool, dashes: str = "--") -> None:
    """Checks what is given for the images against what is measured of them.

    Args:
      request: what is measured.
      networks: places of feature networks that are named, by the names of `NETWORKS`.
      generated: whether a model makes the images.
      dashes: what stands before the names in errors.

    Raises:
      UserError: something is missing, or nothing needs it.
    """
    for name in networks:
        if name not in request.networks():
            raise UserError(f"{dashes}{name}: no metric that is measured needs it")
    if request.protocol.asked == "prompts" and generated and request.prompts is None:
        raise UserError(f"{dashes}prompts FILE is missing: {request.protocol.prompts}")
    if request.prompts and not generated and "clip" not in request.networks():
        raise UserError(f"{dashes}prompts: no metric that is measured needs captions")


def of_pictures(request: Request) -> list[Measure]:
    """The metrics that need features of real images, whose reference has pictures in the place of features."""
    return [
        each for each in request.measures if each.compares_features and request.references[each.name].features is None
    ]


def parse_seeds(text: str, dashes: str = "--") -> tuple[int, ...]:
    """Seeds, separated by commas. Raises UserError where they are none, or one is there twice."""
    try:
        seeds = tuple(int(piece) for piece in text.split(","))
    except ValueError:
        raise UserError(f"{dashes}seeds is {text!r}: write numbers with commas between them, such as 0,1,2") from None
    if not all(0 <= seed <= MOST_SEED for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UserError(f"{dashes}seeds is {text!r}: use different numbers from 0 to {MOST_SEED}")
    return seeds


def _files_of(measures: Sequence[Measure], references: Sequence[str], flag: str) -> dict[str, str]:
    """The file of each metric that has a reference."""
    needing = {each.name: each for each in measures if each.reference}
    if references and not needing:
        raise UserError(f"{flag}: no metric that is measured has a reference")
    files: dict[str, str] = {}
    for text in references:
        name, equals, file = text.partition("=")
        if not equals or name not in needing:
            if len(needing) > 1:
                raise UserError(f"{flag} {text}: write METRIC=FILE, as {' and '.join(needing)} have one each")
            name, file = next(iter(needing)), text
        if name in files:
            raise UserError(f"{flag}: {name} has two files, {files[name]} and {file}")
        files[name] = file
    for name, measure in needing.items():
        if name not in files:
            own = f" --metric {name}" * (name != "fid") + " --features K" * (measure.statistic == "kid")
            how = f"download {at}" if (at := measure.reference_at) else f"python -m sid_jax.reference{own} makes it"
            own = f"{name}=FILE" if len(needing) > 1 else "FILE"
            raise UserError(f"{flag} {own} is missing: statistics of {measure.reference} ({how})")
    return files


def _read(measure: Measure, file: str, flag: str) -> Reference:
    reference = read_reference(file, "fd_dinov2" if measure.network == "dinov2" else "fid")
    width, whose = WIDTHS[measure.network], {"inception": "Inception's", "dinov2": "DINOv2's"}[measure.network]
    if len(reference.statistics.mean) != width:
        raise UserError(
            f"{flag} {file} is of features of {len(reference.statistics.mean)} numbers, and {measure.name} is of "
            f"{whose} {width}"
        )
    if measure.compares_features and reference.features is None and not reference.pictures:
        raise UserError(
            f"{flag} {file} has neither features nor pictures, which {measure.name} needs: name {measure.reference}"
        )
    there = reference.pictures if reference.features is None else len(reference.features)
    if measure.statistic == "kid" and there < SUBSET_SIZE:
        raise UserError(
            f"{flag} {file} has features of {there} images, and {measure.name} needs {SUBSET_SIZE}: "
            "python -m sid_jax.reference --features K keeps so many"
        )
    return reference


def read_prompts_of(path: str) -> Prompts:
    """The prompts of a file. Raises UserError where it can't be read."""
    lines = read_prompt_file(path)
    return Prompts(lines, hashlib.sha256(absolute(path).read_bytes()).hexdigest(), str(absolute(path)))
