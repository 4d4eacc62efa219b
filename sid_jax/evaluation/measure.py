"""Measures a distilled student beside its teacher: quality, agreement with the prompts, and speed."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sid_jax import assets
from sid_jax.data.prompts import read_prompt_file
from sid_jax.digits.metric import DigitsMetric
from sid_jax.errors import UserError
from sid_jax.evaluation.report import Evaluation
from sid_jax.experiment import build
from sid_jax.experiment.condition_cache import Text
from sid_jax.experiment.images import TextToImage
from sid_jax.experiment.student import Student
from sid_jax.families.stable_diffusion import Teacher
from sid_jax.runtime.run.pictures import side_by_side
from sid_jax.sid import VP
from sid_jax.teachers.samplers.ddim import DDIM


def open_metric(config: ConfigDict, samples: int) -> DigitsMetric:
    """The metric network that a config names, for a table on `samples` images of each.

    Raises:
      UserError: it names none, or there are too few samples, or the teacher can't be sampled as it says.
    """
    if not config.evaluate.metric:
        raise UserError("config key evaluate.metric is empty: there is no metric for this teacher")
    if samples < 100:
        raise UserError(f"{samples} samples are too few for a Frechet distance: use at least 100")
    if config.evaluate.teacher_steps < 1:
        raise UserError(f"config key evaluate.teacher_steps is {config.evaluate.teacher_steps}: use a positive number")
    return DigitsMetric.load(Path(assets.resolve(config.evaluate.metric)))


def evaluate(student: Student, metric: DigitsMetric, samples: int, mesh: jax.sharding.Mesh | None = None) -> Evaluation:
    """Measures the student and the teacher that its config names, on images of the same prompts and noise.

    Args:
      student: its parameters are on the devices of `mesh`.
      metric: what measures the images.
      samples: images of each.
      mesh: the devices that make the images; by default one. Where it has several processes', all of them call this.
    """
    config = student.config
    prompts = read_prompt_file(assets.resolve(config.prompts))
    asked = _in_turn(prompts, samples)
    teacher = build.open_teacher(config, mesh=mesh)
    with build.naming("teacher"):
        process = VP.from_scheduler(teacher.scheduler_config)
    ddim = DDIM(process, config.evaluate.teacher_steps, config.evaluate.teacher_guidance)

    rows, images = {}, {}
    for name, sampler, params in (
        ("teacher", ddim, teacher.unet.params),
        ("student", student.sampler, student.params),
    ):
        generate = TextToImage(teacher, sampler, config.resolution, mesh=mesh)
        images[name], seconds = _timed(generate, params, asked, config.seed)
        rows[name] = {
            "steps": sampler.num_steps,
            "guidance": sampler.guidance_scale if isinstance(sampler, DDIM) else None,
            **metric(images[name], asked),
            "seconds_per_1000": seconds * 1000 / samples,
        }
    return Evaluation(rows, samples, _compare(images, rows, prompts))


class StudentQuality:
    """Measures a student while it trains, always on the same prompts and noise.

    Args:
      teacher: its pipeline.
      sampler: how the student is sampled.
      config: the run's; `evaluate.samples` and `seed` are read.
      prompts: those of the run.
      metric: what measures the images.
      text, mesh: see `TextToImage`.
    """

    def __init__(
        self,
        teacher: Teacher,
        sampler: Any,
        config: ConfigDict,
        prompts: Sequence[str],
        metric: DigitsMetric,
        text: Text | None = None,
        mesh: jax.sharding.Mesh | None = None,
    ):
        self._asked = _in_turn(prompts, config.evaluate.samples)
        self._generate = TextToImage(teacher, sampler, config.resolution, text=text, mesh=mesh)
        self._metric, self._seed = metric, config.seed

    def __call__(self, params: Any) -> dict[str, float]:
        """Name to value, such as `frechet_distance`, of the images that the parameters make."""
        return self._metric(self._generate(params, self._asked, self._seed), self._asked)


def _in_turn(prompts: Sequence[str], samples: int) -> list[str]:
    """So many prompts, each in its turn."""
    return [prompts[i % len(prompts)] for i in range(samples)]


def _timed(generate: TextToImage, params: Any, prompts: list[str], seed: int) -> tuple[np.ndarray, float]:
    """The images, and the seconds they took; compiling is not counted."""
    generate(params, prompts[: generate.batch], seed)
    began = time.perf_counter()
    images = generate(params, prompts, seed)
    return images, time.perf_counter() - began


def _compare(images: dict[str, np.ndarray], rows: dict[str, dict], prompts: list[str], each: int = 8) -> Any:
    """Ten prompts, one of each tenth of the file, with the first images that each was asked for."""
    prompts = prompts[: len(images["student"])]
    count = min(10, len(prompts))
    chosen = [len(prompts) * i // count + i % max(len(prompts) // count, 1) for i in range(count)]
    each = min(each, max(len(images["student"]) // len(prompts), 1))
    picks = [p + j * len(prompts) for p in chosen for j in range(each)]
    titles = tuple(f"{name}, {rows[name]['steps']} step{'s' * (rows[name]['steps'] > 1)}" for name in rows)
    return side_by_side(images["teacher"][picks], images["student"][picks], titles, [prompts[i] for i in chosen])
