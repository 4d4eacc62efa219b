"""The page of a run, `report.html`: one file that loads nothing, to be copied from where the run is, and opened.

It has the curves of `metrics.jsonl` and `timing.jsonl`, the sample grids by update, the settings that differ from the
defaults, and of a run that has ended teacher beside student and the table. What it is made of is in this folder:
`page.html`, `page.js`, and Chart.js (MIT, see chart.LICENSE.md), which a browser finds in the page itself.
"""

import heapq
import html
import io
import itertools
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath
from PIL import Image

from sid_jax.errors import UserError
from sid_jax.runtime.run.captions import kept
from sid_jax.runtime.run.report.charts import arranged
from sid_jax.runtime.run.report.curves import Curves
from sid_jax.runtime.run.report.grids import MOST_GRIDS, Grids, embedded, spread
from sid_jax.runtime.storage.files import write_whole
from sid_jax.runtime.storage.json_files import parse_json, read_json
from sid_jax.runtime.storage.small_files import read_lines, read_small_bytes

FILE = "report.html"
PICTURE, TABLE = "side_by_side.png", "table.json"  # what a run writes at its end
GRIDS = "student"  # the name of the pictures that are shown by update

Changes = Sequence[tuple[str, Any, Any]]
"""Settings that differ from the defaults: key, value, default."""

_HERE = Path(__file__).parent
_GRID = re.compile(GRIDS + r"-(\d+)\.png")
_LONGEST_LINE = 1 << 20  # bytes
_LARGEST_PICTURE = 1 << 28  # bytes

_log = logging.getLogger(__name__)


class Page:
    """The page, as it is made up from what a run logs, or from what is in its folder.

    Args:
      workdir: the run's folder, local or gs://.
      settings: the resolved config as nested dicts.
      changes: those of the settings that are shown.
    """

    def __init__(self, workdir: epath.Path, settings: Mapping[str, Any], changes: Changes) -> None:
        self.workdir = workdir
        self._settings, self._changes = settings, changes
        self._curves, self._grids = Curves(), Grids()
        self._step = 0

    def add_line(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds a point to the curve of each name."""
        self._curves.add(step, values)
        self._step = step

    def add_grid(self, step: int, image: Image.Image) -> None:
        """Adds the sample grid of an update."""
        self._grids.add(step, image)

    def load(self, last_step: int | None = None) -> None:
        """Adds what is in the folder.

        Args:
          last_step: what is there of later updates is left out; None: nothing is.

        Raises:
          UserError: a file can't be read. A grid that can't be is left out, which is said.
        """
        for step, values in _lines(self.workdir):
            if last_step is None or step <= last_step:
                self.add_line(step, values)
        folder = self.workdir / "samples"
        found = [_GRID.fullmatch(file.name) for file in folder.iterdir()] if folder.is_dir() else []
        names = {int(name[1]): name[0] for name in found if name and (last_step is None or int(name[1]) <= last_step)}
        for step in spread(names, MOST_GRIDS):
            try:
                self.add_grid(step, _open_picture(folder / names[step]))
            except UserError as error:
                _log.warning("%s; %s is without it", error, FILE)

    def write(self, ended: bool, path: os.PathLike | str | None = None) -> None:
        """Writes the page.

        Args:
          ended: whether it has what a run writes at its end, as far as that is there.
          path: where to; by default into the run's folder.

        Raises:
          OSError: it can't be written; of a bucket, whatever its client raises.
          UserError: what belongs to the end can't be read.
        """
        write_whole(path or self.workdir / FILE, self._text(ended))

    def _text(self, ended: bool) -> str:
        charts, others, labels = arranged(self._curves.names)
        grids = self._grids.items()
        captions, captions_of = self._grids.captions()
        data = {
            "charts": charts,
            "others": others,
            "labels": labels,
            "steps": self._curves.steps,
            "values": {name: self._curves.of(name) for name in self._curves.names},
            "grids": grids,
            "captions": captions,
            "captions_of": captions_of,
        }
        parts = {
            "title": html.escape(self.workdir.name),
            "about": html.escape(_about(self._settings, self._step)),
            "end": self._end() if ended else "",
            "grids": _SLIDER.format(last=len(grids) - 1) if grids else "",
            "settings": _table(("setting", "here", "default"), self._changes, "<code>{}</code>"),
            "written": time.strftime("Written on %Y-%m-%d at %H:%M UTC.", time.gmtime()),
            "data": _in_script(data),
            # A browser would look for the map beside the page.
            "chart": re.sub(r"\n//# sourceMappingURL=.*", "", _file("chart.umd.min.js")),
            "script": _file("page.js"),
        }
        return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _file("page.html"))

    def _end(self) -> str:
        """Teacher beside student, and the table, as far as they are there."""
        picture, table = self.workdir / PICTURE, self.workdir / TABLE
        found = []
        if picture.exists():
            image = _open_picture(picture)
            address = embedded(image, larger=2)
            found.append(f'<h2>Teacher beside student</h2>\n<img src="{address}" alt="teacher beside student">')
            if captions := kept(image):
                lines = "".join(f"<li>{html.escape(each)}</li>" for each in captions)
                found.append(_CAPTIONS.format(id="", lines=lines))
        if table.exists():
            found.append(_measured(read_json(table)))
        return "\n".join(found)


_CAPTIONS = "<details{id}><summary>Texts of the images, row by row</summary><ol>{lines}</ol></details>"
_SLIDER = f"""\
<h2>Samples of the student</h2>
<p class="quiet">The same prompts or classes, and the same noise, by the average of the generator.</p>
<div class="slider"><input type="range" id="slider" min="0" max="{{last}}" step="1" aria-label="update">
<output id="update" for="slider"></output></div>
<img id="grid" alt="">
{_CAPTIONS.format(id=' id="captions"', lines="")}
"""


def _about(settings: Mapping[str, Any], step: int) -> str:
    total, images = -(-settings["images"] // settings["batch"]), step * settings["batch"]
    return f"update {step:,} of {total:,}, {images:,} images; teacher {settings['teacher']}"


def _measured(table: Mapping[str, Any]) -> str:
    rows = {name: row for name, row in table.items() if isinstance(row, Mapping)}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    cells = [[name, *(_number(row.get(column)) for column in columns)] for name, row in rows.items()]
    note = f'<p class="quiet">{html.escape(str(table["samples"]))} images each</p>' if "samples" in table else ""
    heads = ["", *(column.replace("_", " ") for column in columns)]
    return f'<h2>Measured</h2>\n<div class="numbers">{_table(heads, cells)}</div>{note}'


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]], cell: str = "{}") -> str:
    def line(tag: str, values: Sequence[Any], form: str) -> str:
        inside = "".join(f"<{tag}>{form.format(html.escape(str(value)))}</{tag}>" for value in values)
        return f"<tr>{inside}</tr>"

    return "\n".join(["<table>", line("th", heads, "{}"), *(line("td", row, cell) for row in rows), "</table>"])


def _in_script(value: Any) -> str:
    """JSON that ends no element of HTML."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _lines(workdir: epath.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Update and values of each line of the log, as the boards have them."""
    metrics, timing = _of_file(workdir / "metrics.jsonl", ""), _of_file(workdir / "timing.jsonl", "timing/")
    joined = itertools.groupby(heapq.merge(metrics, timing, key=lambda line: line[0]), key=lambda line: line[0])
    for step, lines in joined:
        yield step, {name: value for _, values in lines for name, value in values.items()}


def _of_file(file: epath.Path, prefix: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if not file.exists():
        return
    for _, line in read_lines(file, _LONGEST_LINE):
        try:
            values = parse_json(line, "")
            step = values.pop("step")
        except (UserError, AttributeError, KeyError, TypeError):
            continue  # what no run writes, or half a line, as a crash leaves it
        values.pop("images", None)
        if isinstance(step, int):
            yield step, {f"{prefix}{name}": value for name, value in values.items()}


def _open_picture(path: epath.Path) -> Image.Image:
    data = read_small_bytes(path, _LARGEST_PICTURE)
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # all of them Pillow's
        raise UserError(f"{path} is not a whole picture ({error})") from error
    return image
