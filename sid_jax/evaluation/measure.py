"""Measures a distilled student beside its teacher: quality, agreement with the prompts, and speed."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from sid_jax import assets
from sid_jax.config import MEASURED
from sid_jax.digits.metric import DigitsMetric
from sid_jax.errors import UserError
from sid_jax.evaluation.asked import in_turn
from sid_jax.evaluation.batch import Batch
from sid_jax.evaluation.loop import Instrument, measure_all, values_of
from sid_jax.evaluation.report import Evaluation
from sid_jax.evaluation.sources import GeneratedImages, Timed
from sid_jax.evaluation.statistics import Features, Kept, certain
from sid_jax.experiment.build import asked_of, open_teacher
from sid_jax.experiment.images import ImageProgram, images_at_a_time
from sid_jax.experiment.shown import captions_of
from sid_jax.experiment.student import Student
from sid_jax.metrics.moments import Estimate
from sid_jax.metrics.precision_recall import NEIGHBOURS
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.run.pictures import side_by_side, two_grids
from sid_jax.runtime.storage.files import on_disk
from sid_jax.size import size_of
from sid_jax.teachers.conditions import Asked
from sid_jax.teachers.teacher import Teacher


def open_metric(config: ConfigDict, samples: int) -> DigitsMetric:
    """The metric network that a config names, for a table on `samples` images of each.

    Raises:
      UserError: it names none, or there are too few samples.
    """
    if not config.evaluate.metric:
        raise UserError("config key evaluate.metric is empty: there is no metric for this teacher")
    if samples < 100:
        raise UserError(f"{samples} samples are too few for a Frechet distance: use at least 100")
    return DigitsMetric.load(on_disk(assets.resolve(config.evaluate.metric), "evaluate.metric"))


def check_measurable(config: ConfigDict, teacher: Teacher, metric: DigitsMetric) -> None:
    """Checks that the teacher and its student can be measured as the config says, before there is a student.

    Raises:
      UserError: the metric is of images of another size or of prompts that this teacher does not take, or the teacher
        can't be sampled so.
    """
    if (size := size_of(config.resolution)) != size_of(metric.resolution):
        raise UserError(
            f"config key resolution is {size}, and the metric {config.evaluate.metric} is of images of "
            f"{metric.resolution} px: leave evaluate.metric empty for another size"
        )
    if teacher.conditions.noun != "prompts" and asked_of(config, teacher.conditions) != list(range(10)):
        raise UserError(
            f"the metric {config.evaluate.metric} is of prompts or of ten classes, and the teacher takes others: leave "
            "evaluate.metric empty"
        )
    teacher.sampler(config.evaluate.teacher_steps, config.evaluate.teacher_guidance)


def measure(student: Student, samples: int | None = None) -> Evaluation:
    """Measures a student and its teacher by the metric that its config names; see `evaluate`.

    Args:
      student: on one device.
      samples: images of each; None: as many as the config says.

    Raises:
      UserError: the config names no metric, or one that is not of such images; or there are too few samples.
    """
    samples = student.config.evaluate.samples if samples is None else samples
    return evaluate(student, open_metric(student.config, samples), samples)


def evaluate(student: Student, metric: DigitsMetric, samples: int, mesh: jax.sharding.Mesh | None = None) -> Evaluation:
    """Measures the student and the teacher that its config names, on images of the same prompts and noise.

    Args:
      student: its parameters are on the devices of `mesh`.
      metric: what measures the images.
      samples: images of each.
      mesh: the devices that make the images; by default one. Where it has several processes', all of them call this.
    """
    config = student.config
    check_measurable(config, student.teacher, metric)
    teacher = open_teacher(config, "denoiser", "conditions", "space", mesh=mesh)
    all_asked = asked_of(config, teacher.conditions)
    asked = in_turn(all_asked, samples)
    teachers = teacher.sampler(config.evaluate.teacher_steps, config.evaluate.teacher_guidance)

    rows: dict[str, dict[str, Any]] = {}
    pictured = _pictured(samples, len(all_asked))
    pictures = {}
    for name, sampler, params in (
        ("teacher", teachers, teacher.denoiser.params),
        ("student", student.sampler, student.params),
    ):
        program = ImageProgram(teacher, sampler, config.resolution, mesh=mesh)
        program(params, asked[: program.batch], config.seed)  # compiling is not counted
        source, pictures[name] = Timed(GeneratedImages(program, params, asked, config.seed)), Picked(pictured)
        instruments = [_instrument(metric, asked, program.mesh)]
        found = measure_all(source, instruments, watching=[pictures[name]], name=f"sampling the {name}")
        rows[name] = {
            "steps": sampler.num_steps,
            "guidance": sampler.guidance_scale,
            **values_of(found),
            "seconds_per_1000": source.seconds * 1000 / samples,
        }
    left, right = (_titled(name, row["steps"]) for name, row in rows.items())
    prompts = captions_of([asked[i] for i in dict.fromkeys(i % len(all_asked) for i in pictured)]) or [""]
    of_teacher, of_student = (pictures[name].images() for name in ("teacher", "student"))
    return Evaluation(rows, samples, side_by_side(of_teacher, of_student, (left, right), prompts))


class StudentQuality:
    """Measures a student while it trains, always on the same prompts and noise.

    Args:
      program: what makes the images.
      metric: what measures them.
      asked: what is asked for, one of it for each image.
      seed: of the noise.
    """

    def __init__(self, program: ImageProgram, metric: DigitsMetric, asked: Asked, seed: int):
        self._program, self._metric, self._asked, self._seed = program, metric, asked, seed

    def __call__(self, params: Any) -> dict[str, float]:
        """Name to value, such as `frechet_distance`, of the images that the parameters make."""
        source = GeneratedImages(self._program, params, self._asked, self._seed)
        instruments = [_instrument(self._metric, self._asked, self._program.mesh)]
        return values_of(measure_all(source, instruments, name=""))


def beside_teacher(student: Student, asked: Asked, mesh: jax.sharding.Mesh) -> Image.Image:
    """A picture of the teacher's images of what is asked for, and beside them the student's, from the same noise.

    Args:
      student: its parameters are on the devices of `mesh`.
      asked: what each image is of.
      mesh: the devices that make the images; all their processes call this.
    """
    config = student.config
    teacher = open_teacher(config, "denoiser", "conditions", "space", mesh=mesh)
    teachers = teacher.sampler(config.evaluate.teacher_steps, config.evaluate.teacher_guidance)
    batch = mesh.size * images_at_a_time(config.resolution)
    images, titles = [], []
    for name, sampler, params in (
        ("teacher", teachers, teacher.denoiser.params),
        ("student", student.sampler, student.params),
    ):
        program = ImageProgram(teacher, sampler, config.resolution, batch, mesh, strict=False)
        images.append(program(params, asked, config.seed, f"sampling the {name}"))
        titles.append(_titled(name, sampler.num_steps))
    return two_grids(images, titles, captions_of(asked))


def _titled(name: str, steps: int) -> str:
    return f"{name}, {steps} step{'s' * (steps > 1)}"


def _instrument(metric: DigitsMetric, asked: Asked, mesh: jax.sharding.Mesh) -> Instrument:
    """The metric network, and its values of images of what is asked for."""
    look_on = metric.looking_on(mesh)

    def look(batch: Batch, asked: Asked | None) -> Features:
        features, digits = look_on(batch.on_devices())
        return {"features": features, "digits": digits}

    def compute(features: np.ndarray, digits: np.ndarray) -> dict[str, Estimate]:
        return {name: certain(value) for name, value in metric.values(features, digits, asked).items()}

    return Instrument(look, (Kept(MEASURED, ("features", "digits"), NEIGHBOURS + 1, compute),))


def _pictured(samples: int, prompts: int, each: int = 8) -> list[int]:
    """The rows of ten prompts, one of each tenth of all, with the first images that each was asked for."""
    prompts = min(prompts, samples)
    count = min(10, prompts)
    chosen = [prompts * i // count + i % max(prompts // count, 1) for i in range(count)]
    each = min(each, max(samples // prompts, 1))
    return [p + j * prompts for p in chosen for j in range(each)]


class Picked:
    """Keeps some of the images that are measured.

    Args:
      rows: which.
    """

    def __init__(self, rows: Sequence[int]):
        self._rows, self._found = rows, dict[int, np.ndarray]()

    def __call__(self, batch: Batch) -> None:
        """Looks at a batch; all processes call this together."""
        wanted = set(self._rows).intersection(batch.rows.tolist())
        if wanted:
            images = meshes.gathered(batch.on_devices())
            self._found |= {row: images[row - batch.start].copy() for row in wanted}

    def images(self) -> np.ndarray:
        """In the order of the rows, `[n, H, W, 3]`."""
        return np.stack([self._found[row] for row in self._rows])
