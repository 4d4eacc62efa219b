"""Makes pictures of prompts or classes with a distilled student, or with a teacher."""

if __name__ == "__main__":  # before the imports: they take seconds, and may fail
    from sid_jax.runtime.cli.start import start

    start("sid_jax.sample")

import argparse
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from sid_jax.data.labels import NO_LABEL
from sid_jax.errors import UserError
from sid_jax.experiment.images import FirstNoise, count_of
from sid_jax.experiment.sampling import Wanted, program_of
from sid_jax.experiment.student import Model, open_model, open_run
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.cli.outputs import check_new_file, check_output
from sid_jax.runtime.run.pictures import TILE, image_grid, save_png
from sid_jax.runtime.run.progress import following
from sid_jax.runtime.storage.arrays import Rows, npy_in
from sid_jax.runtime.storage.files import absolute, on_disk, reaching
from sid_jax.runtime.storage.zips import zip_appearing

GRID_PIXELS = 2**26  # of a grid: about 200 MB
_PICTURE = re.compile(r"\d{4,}\.png|grid\.png")

EPILOG = """\
Writes 0000.png, 0001.png, ... (N pictures of the first prompt or class, then N of the second, ...) and grid.png, which
has a row for each prompt or class if N is more than 1, and as many of the first rows as fit. The same seed gives the
same pictures. A folder that has such pictures already is refused, so that old and new ones are not mixed.

A model that was trained with text takes --prompts, one that was trained with class labels takes --classes, of which
none are all of them, and one that was trained with neither takes --n alone.

--npz FILE writes N pictures of each into one file in the place of a folder, for other people's evaluators: `arr_0`,
uint8 [images, H, W, 3], and for classes `arr_1` with their labels. There the classes take turns (0, 1, 2, ..., 0, 1, 2,
...), so that an evaluator that splits the file finds all of them in each part. It is written as the pictures are made.

--noise FILE is what the samples begin with, in the place of the seed's: z of N(0, 1), one for each picture in the order
of the files, as np.save writes a float32 array [images, H, W, C], or [images, C, H, W] as PyTorch has it. The later
draws of a sampler that has some are the seed's.

examples:
  python -m sid_jax.sample --run runs/digits_1step --prompts "a handwritten seven" --n 8 --out pictures
  python -m sid_jax.sample --model exported --prompts prompts.txt --out pictures
  python -m sid_jax.sample --model bundled:digits --prompts "the digit 3" --steps 50 --guidance 2 --out pictures
  python -m sid_jax.sample --model student --classes 0-9 --n 8 --out pictures
  python -m sid_jax.sample --model student --n 5000 --npz samples.npz"""


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m sid_jax.sample", __doc__, EPILOG)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", metavar="DIR", help="the folder of a run: its newest checkpoint")
    source.add_argument("--model", metavar="FOLDER", help="an exported folder, or a teacher's folder, file or hub id")
    command_line.add_step(parser)
    requested = parser.add_mutually_exclusive_group()
    requested.add_argument(
        "--prompts", dest="asked", metavar="TEXT_OR_FILE", help="a prompt, or a file with one a line"
    )
    requested.add_argument("--classes", dest="asked", metavar="CLASSES", help="labels and ranges of them: 0-9, or 1,3")
    parser.add_argument("--n", metavar="N", type=int, default=1, help="pictures of each prompt or class (default: 1)")
    parser.add_argument(
        "--steps", metavar="K", type=int, help="steps (default: as trained, or as its family samples a teacher)"
    )
    parser.add_argument("--guidance", metavar="S", type=float, help="guidance of a teacher (default: its family's)")
    parser.add_argument(
        "--seed", metavar="S", type=int, default=0, help="of the noise: 0 to 2^64 - 1, as PyTorch has it (default: 0)"
    )
    parser.add_argument("--noise", metavar="FILE", help=".npy file of what the samples begin with (default: drawn)")
    written = parser.add_mutually_exclusive_group(required=True)
    written.add_argument("--out", metavar="DIR", help="folder for the pictures, with none in it yet")
    written.add_argument("--npz", metavar="FILE", help="file for all pictures, which is not there yet")
    arguments = parser.parse_args(argv)
    wanted = Wanted(arguments.n, arguments.seed, arguments.steps, arguments.guidance, dashes="--")
    if arguments.out is not None:
        _check_folder(absolute(arguments.out))
    else:
        check_new_file(arguments.npz, "--npz")
    noise = None if arguments.noise is None else Rows(arguments.noise, "--noise")
    model = _open(arguments)
    requests = model.teacher.conditions.asked(arguments.asked)
    asked = wanted.of_each(requests, in_turn=arguments.out is None)
    program = program_of(model, wanted.sampler(model))
    given = None if noise is None else first_noise(noise, len(asked), model.teacher.space.shape(model.resolution))
    batches = program.batches(model.params, asked, wanted.seed, given)
    made = (batch.whole() for batch in following(batches, len(asked), "sampling", size=count_of))
    if arguments.out is None:
        save_npz(made, asked, on_disk(arguments.npz, "--npz"))
    else:
        columns = 1 if arguments.asked is None and len(requests) == 1 else arguments.n
        save(made, asked, columns, absolute(arguments.out))
    print(f"{len(asked)} pictures in {arguments.npz if arguments.out is None else arguments.out}")


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


def first_noise(noise: Rows, count: int, shape: tuple[int, int, int]) -> FirstNoise:
    """The noise of a file for `count` pictures, of which (H, W, C) is what is diffused.

    Raises:
      UserError: the file has another number of them, or another shape.
    """
    height, width, channels = shape
    by_channel = (channels, height, width)
    if noise.shape not in ((count, *shape), (count, *by_channel)):
        raise UserError(
            f"--noise has the shape {noise.shape}: {count} pictures begin with {(count, *shape)}, or "
            f"{(count, *by_channel)} as PyTorch has it"
        )
    if noise.shape[1:] == shape:
        return noise.read
    return lambda first, last: np.ascontiguousarray(noise.read(first, last).transpose(0, 2, 3, 1))


def _open(arguments: argparse.Namespace) -> Model:
    """The model that the flags name, with all parameters that sampling takes."""
    if not arguments.run:
        if arguments.step is not None:
            raise UserError("--step is of a run's checkpoints: give it with --run; how many steps to take is --steps")
        return open_model(arguments.model)
    student = open_run(arguments.run, "conditions", "space", step=arguments.step)
    return Model(student.teacher, student)


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
                    raise _not_finite(name, asked[count])
                with reaching(folder):
                    save_png(image, folder / name)
                count += 1
                if count <= _most_in_grid(image.shape[0], image.shape[1], columns):
                    shown.append(image)
        save_png(image_grid(np.stack(shown), columns if 1 < columns <= len(shown) else None), folder / "grid.png")
    except OSError as error:
        raise UserError(f"{folder} can't be written to: {error.strerror or error}") from error


def save_npz(batches: Iterable[tuple[np.ndarray, np.ndarray]], asked: Sequence[Any], file: Path) -> None:
    """Writes images to an .npz file, each batch when it is made: the whole file or nothing.

    Args:
      batches: as `save` has them.
      asked: what each picture is of; labels are written too.
      file: on a disk.

    Raises:
      UserError: a picture is not finite, or the file can't be written.
    """
    count, batches = 0, iter(batches)
    first = next(batches)
    shape = (len(asked), *first[0].shape[1:])
    try:
        with zip_appearing(file, math.prod(shape)) as packed:
            with npy_in(packed, "arr_0", shape, np.uint8) as stream:
                for images, finite in itertools.chain([first], batches):
                    if not finite.all():
                        number = count + int(np.argmin(finite))
                        raise _not_finite(str(number), asked[number])
                    stream.write(np.ascontiguousarray(images).tobytes())
                    count += len(images)
            if isinstance(asked[0], int) and asked[0] != NO_LABEL:
                with npy_in(packed, "arr_1", (len(asked),), np.int64) as stream:
                    stream.write(np.fromiter(asked, np.int64, len(asked)).tobytes())
    except OSError as error:
        raise UserError(f"{file} can't be written: {error.strerror or error}") from error


def _not_finite(picture: str, asked: Any) -> UserError:
    return UserError(
        f"picture {picture}, of {asked!r}, is not finite and was not written: the weights of the model have numbers "
        "that are not finite, or too large ones, or --guidance is too large"
    )


def _most_in_grid(height: int, width: int, columns: int) -> int:
    """How many pictures a grid shows: whole rows, if at least one fits."""
    fit = max(1, GRID_PIXELS // (max(height, TILE) * max(width, TILE)))
    return max(fit // columns * columns, 1) if columns <= fit else fit
