"""Measures generators, or pictures in a folder, by the protocol of a published table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sid_jax.evaluation.dump import Dump, has_begun
from sid_jax.evaluation.loop import measure_all
from sid_jax.evaluation.networks import FeatureNetworks, Reals
from sid_jax.evaluation.request import Request
from sid_jax.evaluation.saved import SavedMeasurement, digest_of
from sid_jax.evaluation.sources import Source
from sid_jax.formats.fingerprint import digest_of_tensors
from sid_jax.metrics.moments import Estimate
from sid_jax.runtime.devices import processes


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
      name: "student", "teacher" or "images".
      source: its images of a seed.
      about: what its images depend on, JSON values by name: `sha256`, `steps`, `resolution` and others.
    """

    name: str
    source: Callable[[int], Source]
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """What was found of a subject.

    Attributes:
      subject: of which.
      by_seed: the values by name, of each seed.
    """

    subject: Subject
    by_seed: Mapping[int, Mapping[str, Estimate]]


def measure_subject(
    request: Request,
    subject: Subject,
    networks: FeatureNetworks,
    reals: Reals,
    out: Path | None = None,
    dump: Path | None = None,
) -> Measured:
    """Measures one of the subjects, for each seed. Of several processes all call this together.

    Args:
      request: what is wanted.
      subject: of which.
      networks: open.
      reals: features of the references' pictures.
      out: a folder where an interrupted measurement is gone on from; None: it is not.
      dump: a folder where the images are written to; None: they are not.

    Raises:
      UserError: an image can't be measured, or a folder can't be used.
    """
    found = {}
    for seed in request.seeds:
        source = subject.source(seed)
        key = key_of_measurement(request, subject, networks, seed) | ({"dump": str(dump)} if dump else {})
        saved = SavedMeasurement(out, key) if out is not None and processes.is_first() else None
        watching = []
        if dump is not None:
            if saved is not None and not has_begun(dump):
                saved.forget()  # the images of what was measured are gone, and are made again
            watching.append(Dump(dump, digest_of(key), source.asked or []))
        instruments = networks.instruments(request.protocol, request.measures, request.references, reals)
        of_seed = f", seed {seed}" if len(request.seeds) > 1 else ""
        found[seed] = measure_all(source, instruments, saved, watching, f"measuring the {subject.name}{of_seed}")
    return Measured(subject, found)


def key_of_measurement(request: Request, subject: Subject, networks: FeatureNetworks, seed: int) -> dict[str, Any]:
    """What the values depend on, and nothing else: JSON values."""
    return {
        "protocol": request.protocol.name,
        "metrics": [each.name for each in request.measures],
        "samples": request.samples,
        "seed": seed,
        "subject": dict(subject.about),
        "references": {name: reference.sha256 for name, reference in request.references.items()},
        "prompts": request.prompts.sha256 if request.prompts else "",
        "networks": networks.sha256,
    }


def digest_of_params(params: Any) -> str:
    """Hexadecimal SHA-256 of parameters with their names, which this process' devices have whole."""
    leaves = jax.tree.leaves_with_path(params)
    return digest_of_tensors((jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves)
