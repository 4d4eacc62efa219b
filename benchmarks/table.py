"""The table of `docs/reliability.md`, between two lines of comment that mark its place."""

from pathlib import Path
from typing import NamedTuple

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


class Row(NamedTuple):
    """A fault, what was done, how often, and what came of it and was lost."""

    fault: str
    done: str
    times: int
    outcome: str
    lost: str


def so(condition: bool, text: str) -> str:
    """The text where it is so, and its contrary where it is not."""
    return text if condition else f"NOT {text}"


def write_table(page: Path, rows: list[Row]) -> None:
    """Replaces the table in a page."""
    lines = ["| fault | what was done | times | what came of it | lost |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text("\n".join([before + BEGIN, *lines, END + after]))
