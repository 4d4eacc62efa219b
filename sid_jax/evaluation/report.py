"""The table of teacher and student, in text, JSON and pictures."""

import json
from typing import Any, NamedTuple

from etils import epath
from PIL import Image

from sid_jax.errors import UserError
from sid_jax.runtime.run.pictures import save_png
from sid_jax.runtime.run.report.page import PICTURE, TABLE
from sid_jax.runtime.storage.files import reaching, write_whole

COLUMNS = {
    "steps": "steps",
    "guidance": "guidance",
    "frechet_distance": "Frechet distance",
    "precision": "precision",
    "recall": "recall",
    "prompt_accuracy": "prompt accuracy",
    "seconds_per_1000": "seconds / 1,000 images",
}


class Evaluation(NamedTuple):
    """What `evaluate` found.

    rows: name ("teacher", "student") to column to value, the columns being those of `COLUMNS`.
    samples: images that each row is measured on.
    picture: both side by side.
    """

    rows: dict[str, dict[str, Any]]
    samples: int
    picture: Any

    def __str__(self) -> str:
        return as_text(self)


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


def write_json(found: Evaluation, path: epath.Path) -> None:
    """The table as a JSON file.

    Raises:
      UserError: it can't be written.
    """
    try:
        with reaching(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps({**found.rows, "samples": found.samples}, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror or error}") from error


def report(found: Evaluation | None, picture: Image.Image | None, folder: epath.Path) -> None:
    """What a run ends with: prints the table, and writes it and the picture (`side_by_side.png`) into the folder.

    Args:
      found: the table, `table.txt` and `table.json`; None: nothing was measured.
      picture: None: that of what was measured, if there is one.
      folder: of the run.
    """
    if found is not None:
        text = as_text(found)
        print(text, flush=True)
        write_whole(folder / "table.txt", text + "\n")
        write_json(found, folder / TABLE)
        picture = picture or found.picture
    if picture is not None:
        save_png(picture, folder / PICTURE)
