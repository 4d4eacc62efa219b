"""Measures a distilled student beside its teacher: quality, agreement with the prompts, and speed."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from sid_jax import assets, experiment
from sid_jax.data.prompts import read_prompt_file
from sid_jax.errors import UserError
from sid_jax.experiment import Student
from sid_jax.metrics.digits import DigitsMetric
from sid_jax.pipeline import TextToImage
from sid_jax.runtime import command_line
from sid_jax.runtime.files import write_whole
from sid_jax.runtime.pictures import save_png, side_by_side
from sid_jax.sid import VP
from sid_jax.teachers import Teacher
from sid_jax.teachers.ddim import DDIM
from sid_jax.text import Text

COLUMNS = {
    "steps": "steps",
    "guidance": "guidance",
    "frechet_distance": "Frechet distance",
    "precision": "precision",
    "recall": "recall",
    "prompt_accuracy": "prompt accuracy",
    "seconds_per_1000": "seconds / 1,000 images",
}

EPILOG = """\
The table has a row for the teacher (DDIM with guidance) and one for the student. A lower Frechet distance is better;
precision is the share of images that look real, recall the share of real images that could have been made (diversity),
and prompt accuracy the share of images that show what their prompt asks for.

examples:
  python -m sid_jax.evaluate --run runs/digits_1step
  python -m sid_jax.evaluate --model exported --samples 5000 --json table.json"""


class Evaluation(NamedTuple):
    """What `evaluate` found.

    rows: name ("teacher", "student") to column to value, the columns being those of `COLUMNS`.
    samples: images that each row is measured on.
    picture: both side by side.
    """

    rows: dict[str, dict[str, Any]]
    samples: int
    picture: Any


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m sid_jax.evaluate", __doc__, EPILOG)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", metavar="DIR", help="the folder of a run")
    source.add_argument("--model", metavar="FOLDER", help="a folder that sid_jax.export wrote")
    parser.add_argument("--samples", metavar="N", type=int, help="images of each (default: what the run's config says)")
    parser.add_argument("--json", metavar="FILE", help="write the table here too")
    arguments = parser.parse_args(argv)
    if arguments.run:
        student = experiment.open_run(arguments.run)
    else:
        student = experiment.open_model(arguments.model)
        if isinstance(student, Teacher):
            raise UserError(f"{arguments.model} is not a student that sid_jax.export wrote: there is none to measure")
    samples = student.config.evaluate.samples if arguments.samples is None else arguments.samples
    found = evaluate(student, open_metric(student.config, samples), samples)
    print(as_text(found))
    if arguments.json:
        write_json(found, Path(arguments.json))


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
    teacher = experiment.open_teacher(config, mesh=mesh)
    with experiment.naming("teacher"):
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


def as_text(found: Evaluation) -> str:
    """The table for a terminal."""
    cells = [["", *COLUMNS.values()]]
    for name, row in found.rows.items():
        shown = {
            "steps": str(row["steps"]),
            "guidance": "-" if row["guidance"] is None else f"{row['guidance']:g}",
            "frechet_distance": f"{row['frechet_distance']:.2f}",
            "precision": f"{row['precision']:.4f}",
            "recall": f"{row['recall']:.4f}",
            "prompt_accuracy": f"{row['prompt_accuracy']:.4f}",
            "seconds_per_1000": f"{row['seconds_per_1000']:.2f}",
        }
        cells.append([name, *(shown[column] for column in COLUMNS)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: list[str]) -> str:
        name, *numbers = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        return "  ".join([row[0].ljust(len(name)), *numbers])

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:]), f"({found.samples} images each)"])


def write_json(found: Evaluation, path: Path) -> None:
    """The table as a JSON file.

    Raises:
      UserError: it can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({**found.rows, "samples": found.samples}, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror or error}") from error


def report(found: Evaluation, folder: Any) -> None:
    """Prints the table, and writes it (`table.txt`, `table.json`) and the picture (`side_by_side.png`) to a run."""
    text = as_text(found)
    print(text, flush=True)
    write_whole(folder / "table.txt", text + "\n")
    write_json(found, folder / "table.json")
    save_png(found.picture, folder / "side_by_side.png")


if __name__ == "__main__":
    sys.exit(command_line.run(main))
