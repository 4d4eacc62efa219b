"""Measures a student while it trains, by the protocol of a published table; the names of its curves say of how many."""

from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from sid_jax import assets
from sid_jax.config import LOGGED, MEASURED
from sid_jax.errors import UserError
from sid_jax.evaluation.asked import asked_for
from sid_jax.evaluation.loop import measure_all, values_of
from sid_jax.evaluation.networks import FeatureNetworks
from sid_jax.evaluation.protocols import DIGITS, Measure, counted, protocol_named
from sid_jax.evaluation.request import NETWORKS, Request, of_pictures, requested
from sid_jax.evaluation.sources import GeneratedImages, at_a_time
from sid_jax.experiment.images import ImageProgram
from sid_jax.teachers.conditions import Asked, Conditions
from sid_jax.teachers.teacher import Sampler, Teacher

_KEY = "config key evaluate."


def request_of(config: ConfigDict) -> Request | None:
    """What a run measures by a protocol, with its references read; None: nothing.

    Raises:
      UserError: a setting makes no sense, or a file can't be read; or keep_best goes by what is not measured.
    """
    settings = config.evaluate
    if not settings.protocol or not settings.every:
        return None
    if settings.protocol == DIGITS:
        raise UserError(f"{_KEY}protocol is {DIGITS!r}, which is measured by evaluate.metric: leave it empty")
    metrics = [each.name for each in measures_of(config)]
    references = [piece for piece in settings.reference.split(",") if piece]
    request = requested(
        settings.protocol,
        ",".join(metrics),
        settings.samples,
        (config.seed,),
        references,
        assets.resolve(settings.prompts),
        _KEY,
    )
    names = [*names_of(request), *(MEASURED if settings.metric else ())]
    by = config.keep_best_by
    if config.keep_best and by not in names and not by.endswith(LOGGED):
        raise UserError(
            f"config key keep_best_by is {by!r}, which no line of metrics.jsonl has: use one of {', '.join(names)}, "
            "or a loss such as generator_loss"
        )
    return request


def measures_of(config: ConfigDict) -> list[Measure]:
    """The metrics that a run measures by a protocol: those of CLIP and DINOv2, which are large, only where named.

    Raises:
      UserError: there is no such protocol, or it has no such metric.
    """
    settings = config.evaluate
    if not settings.protocol or not settings.every:
        return []
    protocol = protocol_named(settings.protocol, f"{_KEY}protocol")
    own = [each for each in protocol.measures if settings.clip or each.network != "clip"]
    try:
        return [*own, *([protocol.measure("fd_dinov2")] if settings.dinov2 else ())]
    except UserError as error:
        raise UserError(f"{_KEY}dinov2: {error}") from error


def names_of(request: Request) -> list[str]:
    """The names of the curves, such as `fid_10k`."""
    return [counted(name, request.samples) for measure in request.measures for name in measure.values]


class ProtocolQuality:
    """Measures a student by a protocol, always on the same prompts or classes, and noise.

    Args:
      request: what is measured.
      config: the run's.
      program: what makes the images.
      asked: what they are of.
      together: how many of a device are measured at a time; see `GeneratedImages`.
    """

    def __init__(self, request: Request, config: ConfigDict, program: ImageProgram, asked: Asked, together: int):
        self._request, self._program, self._asked, self._seed = request, program, asked, config.seed
        self._together = together
        settings = config.evaluate
        self._networks = FeatureNetworks(request.measures, {name: settings[name] for name in NETWORKS}, program.mesh)
        self._networks.check_references(request.protocol, request.measures, request.references)
        self._reals = self._networks.real_features(of_pictures(request), request.files)

    def __call__(self, params: Any) -> dict[str, float]:
        """Name to value, such as `fid_10k`, of the images that the parameters make."""
        request = self._request
        source = GeneratedImages(self._program, params, self._asked, self._seed, self._together)
        instruments = self._networks.instruments(request.protocol, request.measures, request.references, self._reals)
        found = values_of(measure_all(source, instruments, name=""))
        return {counted(name, request.samples): value for name, value in found.items()}


def measured_of(request: Request, config: ConfigDict, conditions: Conditions, asked: Sequence[Any]) -> Sequence[Any]:
    """What the images are of that are measured as a run trains.

    Args:
      request: what is measured.
      config: the run's.
      conditions: of its teacher.
      asked: what the run asks for, where the protocol's prompts are not named.

    Raises:
      UserError: the teacher takes something else than the protocol has.
    """
    prompts = request.prompts.lines if request.prompts else asked
    return asked_for(request.protocol, conditions, request.samples, config.seed, prompts)


def open_quality(
    request: Request, config: ConfigDict, teacher: Teacher, sampler: Sampler, mesh: jax.sharding.Mesh, asked: Asked
) -> ProtocolQuality:
    """What measures the student of a run; the feature networks are opened, and stay on the devices."""
    made, together = at_a_time(config.resolution, config.evaluate.batch)
    program = ImageProgram(teacher, sampler, config.resolution, mesh.size * made, mesh, strict=False)
    return ProtocolQuality(request, config, program, asked, together)
