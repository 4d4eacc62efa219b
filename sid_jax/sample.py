"""Makes pictures of prompts or classes with a distilled student, or with a teacher."""

if __name__ == "__main__":  # before the imports: they take seconds, and may fail
    from sid_jax.runtime.cli.start import start

    start("sid_jax.sample")

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sid_jax.errors import UserError, user_errors_from
from sid_jax.experiment.images import ImageProgram
from sid_jax.experiment.student import Model, Student, open_model, open_run
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.run.pictures import image_grid, save_png
from sid_jax.sid import FewStep

EPILOG = """\
Writes 0000.png, 0001.png, ... (N pictures of the first prompt or class, then N of the second, ...) and grid.png, which
has a row for each prompt or class if N is more than 1. The same seed gives the same pictures.

A model that was trained with text takes --prompts, one that was trained with class labels takes --classes.

examples:
  python -m sid_jax.sample --run runs/digits_1step --prompts "a handwritten seven" --n 8 --out pictures
  python -m sid_jax.sample --model exported --prompts prompts.txt --out pictures
  python -m sid_jax.sample --model bundled:digits --prompts "the digit 3" --steps 50 --guidance 2 --out pictures"""


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m sid_jax.sample", __doc__, EPILOG)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", metavar="DIR", help="the folder of a run: its newest checkpoint")
    source.add_argument("--model", metavar="FOLDER", help="an exported folder, or a teacher's folder or hub id")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--prompts", dest="asked", metavar="TEXT_OR_FILE", help="a prompt, or a file with one a line")
    wanted.add_argument("--classes", dest="asked", metavar="CLASSES", help="labels and ranges of them: 0-9, or 1,3")
    parser.add_argument("--n", metavar="N", type=int, default=1, help="pictures of each prompt or class (default: 1)")
    parser.add_argument(
        "--steps", metavar="K", type=int, help="steps (default: as trained, or as its family samples a teacher)"
    )
    parser.add_argument("--guidance", metavar="S", type=float, help="guidance of a teacher (default: its family's)")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of the noise (default: 0)")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the pictures")
    arguments = parser.parse_args(argv)
    if arguments.n < 1:
        raise UserError(f"--n is {arguments.n}: use a positive number")
    if arguments.seed < 0:
        raise UserError(f"--seed is {arguments.seed}: use 0 or more")
    model = _open(arguments)
    if model.student is None:
        sampler = model.teacher.sampler(arguments.steps, arguments.guidance)
        params, resolution = model.teacher.denoiser.params, model.teacher.space.resolution
    else:
        sampler = _student_sampler(model.student, arguments.steps, arguments.guidance)
        params, resolution = model.student.params, model.student.config.resolution

    requests = model.teacher.conditions.asked(arguments.asked)
    asked = [request for request in requests for _ in range(arguments.n)]
    batch = max(1, min(len(asked), 100 * 64**2 // resolution**2))
    images = ImageProgram(model.teacher, sampler, resolution, batch)(params, asked, arguments.seed)
    save(images, arguments.n, Path(arguments.out))
    print(f"{len(images)} pictures in {arguments.out}")


def _open(arguments: argparse.Namespace) -> Model:
    """The model that the flags name, with all parameters that sampling takes."""
    if not arguments.run:
        return open_model(arguments.model)
    student = open_run(arguments.run, "conditions", "space")
    return Model(student.teacher, student)


def _student_sampler(student: Student, steps: int | None, guidance: float | None) -> FewStep:
    """How a student is sampled; with another number of steps than it was trained for, where the flags say so."""
    if guidance is not None:
        raise UserError("--guidance is for teachers: a student is sampled without guidance")
    if steps is None:
        return student.sampler
    with user_errors_from("--steps"):
        return dataclasses.replace(student.sampler, num_steps=steps)


def save(images: np.ndarray, columns: int, folder: Path) -> None:
    """Writes images uint8 `[N, H, W, 3]` as `0000.png`, ... and all of them as `grid.png`.

    Raises:
      UserError: the folder can't be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images):
            save_png(image, folder / f"{i:04d}.png")
        save_png(image_grid(images, columns if columns > 1 else None), folder / "grid.png")
    except OSError as error:
        raise UserError(f"{folder} can't be written to: {error.strerror or error}") from error
