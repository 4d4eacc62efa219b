"""What a protocol measures, opened on the devices: a run's student, an export, a teacher, or a folder of pictures."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from sid_jax.data.sources.pictures import Pictures
from sid_jax.errors import UserError
from sid_jax.evaluation.asked import asked_for
from sid_jax.evaluation.dump import CAPTIONS
from sid_jax.evaluation.places import placed
from sid_jax.evaluation.published import Subject, digest_of_params
from sid_jax.evaluation.request import Prompts, Request, read_prompts_of
from sid_jax.evaluation.sources import MOST_AT_A_TIME, GeneratedImages, StoredImages, at_a_time
from sid_jax.experiment.build import open_teacher
from sid_jax.experiment.images import ImageProgram
from sid_jax.experiment.sampling import Wanted
from sid_jax.experiment.student import Model, Student, open_model, open_run
from sid_jax.runtime.storage.files import absolute
from sid_jax.size import Resolution, size_of
from sid_jax.teachers.teacher import Sampler, Teacher


@dataclasses.dataclass(frozen=True)
class Places:
    """Where a model is, and how it is sampled.

    Attributes:
      run: the folder of a run; empty: it is an export or a teacher.
      model: an exported folder, or a teacher's folder, file or hub id.
      step: of the run's checkpoints; None: the newest.
      teacher: where the student's teacher is, which is measured too; empty: where the config says; None: it is not.
      batch: images that a device makes at a time; 0: as many as are usual for their size.
      wanted: steps and guidance.
    """

    run: str = ""
    model: str = ""
    step: int | None = None
    teacher: str | None = None
    batch: int = 0
    wanted: Wanted = dataclasses.field(default_factory=Wanted)


def open_subjects(places: Places, request: Request, mesh: jax.sharding.Mesh) -> list[Subject]:
    """A student, and its teacher before it if that is wanted; or a teacher alone.

    Raises:
      UserError: it can't be opened, or is none that the protocol can be measured on.
    """
    dashes = request.dashes
    student, teacher = _open(places, mesh)
    model = Model(teacher, student)
    sampler = places.wanted.sampler(model)
    name = "teacher" if student is None else "student"
    found = [_generated(name, model, sampler, request, places.batch, mesh)]
    if places.teacher is not None:
        if student is None:
            raise UserError(f"{dashes}teacher: {places.model} is a teacher itself: leave {dashes}teacher out")
        config = placed(student, {"teacher": places.teacher or None}, places.model, dashes).config
        own = open_teacher(config, "denoiser", "conditions", "space", mesh=mesh)
        settings = config.evaluate
        model = Model(own, None)
        sampler = own.sampler(settings.teacher_steps, settings.teacher_guidance)
        found.insert(0, _generated("teacher", model, sampler, request, places.batch, mesh, config))
    return found


def open_stored(pictures: Pictures, place: str, request: Request, mesh: jax.sharding.Mesh) -> Subject:
    """Pictures in files, with the `captions.txt` in their folder where a metric needs captions.

    Args:
      pictures: of `place`.
      place: as the user wrote it.
      request: what is measured.
      mesh: the devices.

    Raises:
      UserError: there are fewer pictures or captions than are wanted.
    """
    captions, asked, dashes = request.prompts, None, request.dashes
    if request.samples > len(pictures.names):
        raise UserError(
            f"{dashes}samples is {request.samples}, and {dashes}images {place} has {len(pictures.names)} pictures"
        )
    if "clip" in request.networks():
        captions = captions or _captions_beside(place, dashes)
        if len(captions.lines) < request.samples:
            raise UserError(f"{captions.path} has {len(captions.lines)} captions, for {request.samples} pictures")
        asked = captions.lines[: request.samples]
    same = request.protocol.transform is None or any(not each.transformed for each in request.measures)
    source = StoredImages(pictures, request.samples, asked, MOST_AT_A_TIME * mesh.size, mesh, same_size=same)
    about = {
        "files": pictures.digest(),
        "resolution": str(size_of(source.size)),
        "captions": captions.sha256 if captions else "",
    }
    return Subject("images", lambda seed: source, about)


def _captions_beside(place: str, dashes: str) -> Prompts:
    file = absolute(place) / CAPTIONS
    if not file.is_file():
        raise UserError(
            f"{dashes}images {place} has no {CAPTIONS}, which a CLIP score needs: add it, or name {dashes}prompts"
        )
    return read_prompts_of(str(file))


def _open(places: Places, mesh: jax.sharding.Mesh) -> tuple[Student | None, Teacher]:
    """The student, if it is one, and what has conditions and space on the devices."""
    if not places.run:
        model = open_model(places.model, mesh=mesh)
        return model.student, model.teacher
    student = open_run(places.run, step=places.step, with_teacher=places.teacher is not None, mesh=mesh)
    return student, open_teacher(student.config, "conditions", "space", mesh=mesh)


def _generated(
    name: str,
    model: Model,
    sampler: Sampler,
    request: Request,
    batch: int,
    mesh: jax.sharding.Mesh,
    config: ConfigDict | None = None,
) -> Subject:
    resolution: Resolution = model.resolution if config is None else config.resolution
    made, together = at_a_time(resolution, batch)
    program = ImageProgram(model.teacher, sampler, resolution, mesh.size * made, mesh)
    prompts = request.prompts.lines if request.prompts else []

    def asked(seed: int) -> Sequence[Any]:
        return asked_for(request.protocol, model.teacher.conditions, request.samples, seed, prompts)

    asked(request.seeds[0])  # refuses models that take something else
    about = {
        "sha256": digest_of_params(model.params),
        "steps": sampler.num_steps,
        "guidance": sampler.guidance_scale,
        "sampler": type(sampler).__name__,
        "resolution": str(size_of(resolution)),
    }
    return Subject(name, lambda seed: GeneratedImages(program, model.params, asked(seed), seed, together), about)
