"""A whole measurement by a protocol: what the command and `sid_jax.measure` do."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax

from sid_jax.evaluation.comparability import compared
from sid_jax.evaluation.networks import FeatureNetworks
from sid_jax.evaluation.protocol_report import ProtocolReport
from sid_jax.evaluation.published import Subject, measure_subject
from sid_jax.evaluation.request import Request, of_pictures
from sid_jax.runtime.devices import mesh as meshes


def measure_by_protocol(
    request: Request,
    subjects_on: Callable[[jax.sharding.Mesh], Sequence[Subject]],
    places: Mapping[str, str],
    out: Path | None = None,
    dump: Path | None = None,
) -> ProtocolReport:
    """Measures models or pictures on all devices. Of several processes all call this together.

    Args:
      request: what is wanted.
      subjects_on: opens what is measured on the devices of a mesh.
      places: of feature networks; see `FeatureNetworks`.
      out: a folder where an interrupted measurement is gone on from; None: it is not.
      dump: a folder where the images are written to; None: they are not.

    Raises:
      UserError: a network or a model can't be opened, or an image can't be measured.
    """
    mesh = meshes.make_mesh()
    networks = FeatureNetworks(request.measures, places, mesh)
    subjects = subjects_on(mesh)
    reals = networks.real_features(of_pictures(request), request.files)
    measured = [measure_subject(request, each, networks, reals, out, dump) for each in subjects]
    known = [each.about for each in subjects]
    return ProtocolReport(request, measured, networks.sha256, compared(request, known, networks.released))
