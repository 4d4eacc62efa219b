"""A whole measurement by a protocol: what the command and `sid_jax.measure` do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax

from sid_jax.data.sources.pictures import open_pictures
from sid_jax.errors import UserError
from sid_jax.evaluation.comparability import compared
from sid_jax.evaluation.dump import check_dump
from sid_jax.evaluation.networks import FeatureNetworks
from sid_jax.evaluation.protocol_report import ProtocolReport
from sid_jax.evaluation.protocols import PROTOCOLS
from sid_jax.evaluation.published import Subject, measure_subject
from sid_jax.evaluation.request import NETWORKS, check_fits, of_pictures, parse_seeds, requested
from sid_jax.evaluation.subjects import Places, open_stored, open_subjects
from sid_jax.experiment.sampling import Wanted
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.storage.files import on_disk

GENERATED = ("seeds", "teacher", "dump", "step", "steps", "guidance", "batch")
"""What is said of images that are generated."""
MOST_BATCH = 2**16


@dataclass(frozen=True)
class Said:
    """What is said of a measurement: the flags of the command, or the arguments of `sid_jax.measure`. None: nothing.

    Attributes:
      protocol: its name.
      run, model, images: what is measured: one of them.
      reference: files, or METRIC=FILE.
      dashes: what stands before the names in errors: "--" where they are flags.

    The others are the flags of the same names.
    """

    protocol: str
    run: str | None = None
    model: str | None = None
    images: str | None = None
    metrics: str | None = None
    reference: Sequence[str] | None = None
    prompts: str | None = None
    samples: int | None = None
    seeds: str | None = None
    teacher: str | None = None
    step: int | None = None
    steps: int | None = None
    guidance: float | None = None
    batch: int | None = None
    dump: str | None = None
    out: str | None = None
    inception: str | None = None
    clip: str | None = None
    dinov2: str | None = None
    dashes: str = "--"


def prepared(said: Said) -> Callable[[], ProtocolReport]:
    """Checks and reads all that needs no devices; what it returns measures.

    Of several processes all call that together: it opens networks and models on all their devices.

    Raises:
      UserError: something does not fit, or a file can't be read; later, a network or a model can't be opened, or an
        image can't be measured.
    """
    _check(said)
    dashes = said.dashes
    pictures = open_pictures(said.images, f"{dashes}images") if said.images else None
    samples, protocol = said.samples, PROTOCOLS.get(said.protocol)
    if samples is None and pictures is not None and protocol is not None:
        samples = min(len(pictures.names), protocol.count)
    request = requested(
        said.protocol, said.metrics or "", samples, parse_seeds(said.seeds or "0", dashes), said.reference or (),
        said.prompts or "", dashes,
    )  # fmt: skip
    networks = {name: place for name in NETWORKS if (place := getattr(said, name))}
    check_fits(request, networks, generated=pictures is None, dashes=dashes)
    wanted = Wanted(steps=said.steps, guidance=said.guidance, dashes=dashes)
    model = Places(said.run or "", said.model or "", said.step, said.teacher, said.batch or 0, wanted)
    dump, out = (on_disk(place, f"{dashes}{name}") if place else None
                 for name, place in (("dump", said.dump), ("out", said.out)))  # fmt: skip
    if dump is not None:
        check_dump(dump)

    def subjects_on(mesh: jax.sharding.Mesh) -> list[Subject]:
        if pictures is None:
            return open_subjects(model, request, mesh)
        return [open_stored(pictures, said.images or "", request, mesh)]

    def measure() -> ProtocolReport:
        mesh = meshes.make_mesh()
        opened = FeatureNetworks(request.measures, networks, mesh)
        subjects = subjects_on(mesh)
        reals = opened.real_features(of_pictures(request), request.files)
        measured = [measure_subject(request, each, opened, reals, out, dump) for each in subjects]
        known = [each.about for each in subjects]
        return ProtocolReport(request, measured, opened.sha256, compared(request, known, opened.released))

    return measure


def _check(said: Said) -> None:
    """Checks what is said together. Raises UserError."""
    dashes = said.dashes
    given = {name for name, value in vars(said).items() if value is not None}
    if "images" in given:
        for name in GENERATED:
            if name in given:
                raise UserError(f"{dashes}{name} is for images that are generated, and {dashes}images has them")
    if "dump" in given and "teacher" in given:
        raise UserError(f"{dashes}dump is for the images of one model: leave {dashes}teacher out")
    if "dump" in given and "," in (said.seeds or ""):
        raise UserError(f"{dashes}dump is for the images of one seed: give one with {dashes}seeds")
    if said.batch is not None and not 1 <= said.batch <= MOST_BATCH:
        raise UserError(f"{dashes}batch is {said.batch}: use 1 to {MOST_BATCH}")
    if "guidance" in given and "run" in given:
        raise UserError(f"{dashes}guidance is for teachers: a student is sampled without guidance")
