"""What a measurement by a protocol says: a table to read, and the same and more as JSON."""

import importlib.metadata
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import PIL

from sid_jax.evaluation.comparability import Comparability
from sid_jax.evaluation.protocols import counted
from sid_jax.evaluation.published import Measured
from sid_jax.evaluation.request import Request
from sid_jax.metrics.moments import Estimate

_ABOUT = ("steps", "guidance", "sampler", "resolution", "sha256", "files", "captions")


@dataclass(frozen=True)
class ProtocolReport:
    """What was measured by a protocol, and how it may be compared.

    Attributes:
      request: what was asked.
      measured: each model, or the folder.
      networks: the SHA-256 of each feature network.
      comparability: with the published table.
    """

    request: Request
    measured: Sequence[Measured]
    networks: Mapping[str, str]
    comparability: Comparability

    def name_of(self, value: str) -> str:
        """A value's name: with the number of images, where that is not the protocol's."""
        return value if self.request.whole else counted(value, self.request.samples)

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        request = self.request
        return {
            "protocol": request.protocol.name,
            "samples": request.samples,
            "samples_of_protocol": request.protocol.count,
            "seeds": list(request.seeds),
            "rows": {each.subject.name: self._row(each) for each in self.measured},
            "references": {
                name: {
                    "file": request.files[name],
                    "sha256": reference.sha256,
                    "images": reference.count,
                    "about": reference.about,
                }
                for name, reference in request.references.items()
            },
            "prompts": request.prompts and {"file": request.prompts.path, "sha256": request.prompts.sha256},
            "networks": dict(self.networks),
            "comparable": not self.comparability.differences,
            "not_comparable_because": self.comparability.differences,
            "unknown": self.comparability.unknown,
            "published": [{"model": row.model, **row.values, "source": row.source} for row in request.protocol.rows],
            "versions": _versions(),
        }

    def _row(self, measured: Measured) -> dict[str, Any]:
        about = {name: measured.subject.about[name] for name in _ABOUT if measured.subject.about.get(name) != ""
                 and name in measured.subject.about}  # fmt: skip
        return about | {
            self.name_of(name): {key: _plain(number) for key, number in summary.items()}
            | {"by_seed": {str(seed): _plain(found[name].value) for seed, found in measured.by_seed.items()}}
            for name, summary in summaries(measured.by_seed).items()
        }

    def __str__(self) -> str:
        return self.as_text()

    def as_text(self) -> str:
        """For a terminal."""
        protocol, samples = self.request.protocol, self.request.samples
        images = f"{samples:,} images" if self.request.whole else f"{samples:,} of its {protocol.count:,} images"
        seeds = self.request.seeds
        many = len(seeds) > 1
        head = ["", "metric", "mean" if many else "value", "standard error", "unbiased"]
        cells = [head + (["spread of seeds", "minimum"] if many else [])]
        for each in self.measured:
            for name, found in summaries(each.by_seed).items():
                numbers = [found["value"], found["standard_error"], found["unbiased"]]
                numbers += [found["spread"], found["minimum"]] if many else []
                cells.append([each.subject.name, self.name_of(name), *map(_shown, numbers)])
        lines = [f"protocol {protocol.name}, {images}: {protocol.about}", "", *_table(cells), ""]
        for each in self.measured:
            lines += _described(each)
        for name, reference in self.request.references.items():
            of = f"{reference.count:,} images" if reference.count else "an unknown number of images"
            lines.append(f"reference of {name}: {self.request.files[name]}, {of}, sha256 {reference.sha256[:16]}...")
        lines += [f"{name}: sha256 {digest[:16]}..." for name, digest in self.networks.items()]
        if many:
            lines.append(f"seeds: {', '.join(map(str, seeds))}")
        return "\n".join([*lines, "", *self._verdict()])

    def _verdict(self) -> list[str]:
        differences, unknown = self.comparability
        lines = []
        if differences:
            lines = ["not comparable with the published table because:", *(f"  - {each}" for each in differences)]
        if unknown:
            lines += ["not known:", *(f"  - {each}" for each in unknown)]
        names = {name for each in self.request.measures for name in each.values}
        rows = [row for row in self.request.protocol.rows if names & set(row.values)]
        if not differences and rows:
            lines.append("published by this protocol:")
            for row in rows:
                values = ", ".join(f"{name} {value:g}" for name, value in row.values.items())
                lines.append(f"  {row.model}: {values} ({row.source})")
        return lines


def summaries(by_seed: Mapping[int, Mapping[str, Estimate]]) -> dict[str, dict[str, float]]:
    """Of each value over the seeds: the means of value, standard error and unbiased value; spread and minimum."""
    found = {}
    for name in next(iter(by_seed.values())):
        each = [of_seed[name] for of_seed in by_seed.values()]
        values = np.array([estimate.value for estimate in each])
        found[name] = {
            "value": float(values.mean()),
            "standard_error": float(np.mean([estimate.standard_error for estimate in each])),
            "unbiased": float(np.mean([estimate.unbiased for estimate in each])),
            "spread": float(values.std(ddof=1)) if len(values) > 1 else math.nan,
            "minimum": float(values.min()),
        }
    return found


def _described(measured: Measured) -> list[str]:
    about = measured.subject.about
    if "sha256" not in about:
        return [f"{measured.subject.name}: {about['resolution']} px, files {about['files'][:16]}..."]
    guidance = "" if about["guidance"] is None else f", guidance {about['guidance']:g}"
    return [
        f"{measured.subject.name}: {about['sampler']}, {about['steps']} step{'s' * (about['steps'] > 1)}{guidance}, "
        f"{about['resolution']} px, sha256 {about['sha256'][:16]}..."
    ]


def _table(cells: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: list[str]) -> str:
        shown = [cell.ljust(width) if i < 2 else cell.rjust(width)
                 for i, (cell, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        return "  ".join(shown).rstrip()

    return [line(cells[0]), "  ".join("-" * width for width in widths), *map(line, cells[1:])]


def _shown(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:.4f}"


def _plain(number: float) -> float | None:
    return None if math.isnan(number) else number


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "jax": jax.__version__, "numpy": np.__version__}
    try:
        ours = importlib.metadata.version("sid_jax")
    except importlib.metadata.PackageNotFoundError:  # run from its folder
        ours = "not installed"
    return found | {"pillow": PIL.__version__, "sid_jax": ours}
