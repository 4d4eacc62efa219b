"""Makes pictures of prompts or classes with a distilled student, or with a teacher."""

if __name__ == "__main__":  # before the imports: they take seconds, and may fail
    from sid_jax.runtime.cli.start import start

    start("sid_jax.sample")

import argparse
import dataclasses
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from etils import epath

from sid_jax.errors import UserError, user_errors_from
from sid_jax.experiment.images import ImageProgram
from sid_jax.experiment.student import Model, Student, open_model, open_run
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.cli.outputs import check_output
from sid_jax.runtime.run.pictures import TILE, image_grid, save_png
from sid_jax.runtime.storage.files import absolute, reaching
from sid_jax.sid import MOST_SEED, FewStep

MOST_STEPS = 10_000  # of a sampler: a sample of so many would take hours
MOST_PICTURES = 2**31 - 1  # whose noises are told apart by an int32
GRID_PIXELS = 2**26  # of a grid: about 200 MB
_PICTURE = re.compile(r"\d{4,}\.png|grid\.png")

EPILOG = """\
Writes 0000.png, 0001.png, ... (N pictures of the first prompt or class, then N of the second, ...) and grid.png, which
has a row for each prompt or class if N is more than 1, and as many of the first rows as fit. The same seed gives the
same pictures. A folder that has such pictures already is refused, so that old and new ones are not mixed.

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
    command_line.add_step(parser)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--prompts", dest="asked", metavar="TEXT_OR_FILE", help="a prompt, or a file with one a line")
    wanted.add_argument("--classes", dest="asked", metavar="CLASSES", help="labels and ranges of them: 0-9, or 1,3")
    parser.add_argument("--n", metavar="N", type=int, default=1, help="pictures of each prompt or class (default: 1)")
    parser.add_argument(
        "--steps", metavar="K", type=int, help="steps (default: as trained, or as its family samples a teacher)"
    )
    parser.add_argument("--guidance", metavar="S", type=float, help="guidance of a teacher (default: its family's)")
    parser.add_argument(
        "--seed", metavar="S", type=int, default=0, help="of the noise: 0 to 2^64 - 1, as PyTorch has it (default: 0)"
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the pictures, with none in it yet")
    arguments = parser.parse_args(argv)
    _check(arguments)
    folder = absolute(arguments.out)
    _check_folder(folder)
    model = _open(arguments)
    if model.student is None:
        sampler = model.teacher.sampler(arguments.steps, arguments.guidance)
        params, resolution = model.teacher.denoiser.params, model.teacher.space.resolution
    else:
        sampler = _student_sampler(model.student, arguments.steps, arguments.guidance)
        params, resolution = model.student.params, model.student.config.resolution

    asked = _Repeated(model.teacher.conditions.asked(arguments.asked), arguments.n)
    batch = max(1, min(len(asked), 100 * 64**2 // resolution**2))
    made = ImageProgram(model.teacher, sampler, resolution, batch).batches(params, asked, arguments.seed)
    save(made, asked, arguments.n, folder)
    print(f"{len(asked)} pictures in {arguments.out}")


def _check(arguments: argparse.Namespace) -> None:
    if arguments.n < 1:
        raise UserError(f"--n is {arguments.n}: use a positive number")
    if not 0 <= arguments.seed <= MOST_SEED:
        raise UserError(f"--seed is {arguments.seed}: use 0 to {MOST_SEED}")
    if arguments.steps is not None and arguments.steps > MOST_STEPS:
        raise UserError(f"--steps is {arguments.steps}: use at most {MOST_STEPS}")
    if arguments.guidance is not None and not math.isfinite(arguments.guidance):
        raise UserError(f"--guidance is {arguments.guidance}: use a finite number")


def _check_folder(folder: epath.Path) -> None:
    """Checks that a folder for pictures can be used. Raises UserError where a file is in its way, or pictures in it."""
    try:
        with reaching(folder):
            names = [file.name for file in folder.iterdir()] if folder.exists() else []
            found = sorted(name for name in names if _PICTURE.fullmatch(name))
        check_output(folder / "grid.png", makes_folders=True)
    except OSError as error:
        raise UserError(f"--out {folder} can't be used as a folder: {error.strerror or error}") from error
    if found:
        raise UserError(f"--out {folder} has pictures in it, such as {found[0]}: name another folder, or remove them")


class _Repeated(Sequence[Any]):
    """Each of what is requested so many times, without a list of them all.

    Raises:
      UserError: there are more than noises that differ.
    """

    def __init__(self, requests: Sequence[Any], times: int) -> None:
        self._requests, self._times = requests, times
        if len(requests) * times > MOST_PICTURES:
            raise UserError(
                f"--n is {times}: of {len(requests)} prompts or classes that is more than {MOST_PICTURES} pictures"
            )

    def __len__(self) -> int:
        return len(self._requests) * self._times

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._requests[index // self._times]


def _open(arguments: argparse.Namespace) -> Model:
    """The model that the flags name, with all parameters that sampling takes."""
    if not arguments.run:
        if arguments.step is not None:
            raise UserError("--step is of a run's checkpoints: give it with --run; how many steps to take is --steps")
        return open_model(arguments.model)
    student = open_run(arguments.run, "conditions", "space", step=arguments.step)
    return Model(student.teacher, student)


def _student_sampler(student: Student, steps: int | None, guidance: float | None) -> FewStep:
    """How a student is sampled; with another number of steps than it was trained for, where the flags say so."""
    if guidance is not None:
        raise UserError("--guidance is for teachers: a student is sampled without guidance")
    if steps is None:
        return student.sampler
    with user_errors_from("--steps"):
        return dataclasses.replace(student.sampler, num_steps=steps)


def save(
    batches: Iterable[tuple[np.ndarray, np.ndarray]], asked: Sequence[Any], columns: int, folder: epath.Path
) -> None:
    """Writes images as `0000.png`, ..., each batch when it is made, and as many of the first as fit as `grid.png`.

    Args:
      batches: images uint8 `[n, H, W, 3]`, and whether each is finite, bool `[n]`.
      asked: what each picture is of.
      columns: of the grid; 1: as many as make it about square.
      folder: where they go, made if it is not there.

    Raises:
      UserError: a picture is not finite, or the folder can't be written to.
    """
    count, shown = 0, []
    try:
        with reaching(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for images, finite in batches:
            for image, good in zip(images, finite, strict=True):
                name = f"{count:04d}.png"
                if not good:
                    raise UserError(
                        f"picture {name}, of {asked[count]!r}, is not finite and was not written: the weights of the "
                        "model have numbers that are not finite, or too large ones, or --guidance is too large"
                    )
                with reaching(folder):
                    save_png(image, folder / name)
                count += 1
                if count <= _most_in_grid(len(image), columns):
                    shown.append(image)
        save_png(image_grid(np.stack(shown), columns if 1 < columns <= len(shown) else None), folder / "grid.png")
    except OSError as error:
        raise UserError(f"{folder} can't be written to: {error.strerror or error}") from error


def _most_in_grid(side: int, columns: int) -> int:
    """How many pictures a grid shows: whole rows, if at least one fits."""
    fit = max(1, GRID_PIXELS // max(side, TILE) ** 2)
    return max(fit // columns * columns, 1) if columns <= fit else fit
