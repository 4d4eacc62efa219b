"""Writes a run's page, report.html, anew: its curves, grids, table and settings in one file that loads nothing."""

if __name__ == "__main__":  # before the imports: they take seconds, and may fail
    from sid_jax.runtime.cli.start import start

    start("sid_jax.report")

from collections.abc import Sequence

import sid_jax.config
from sid_jax.errors import UserError
from sid_jax.experiment.student import config_of_run
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.cli.outputs import check_output
from sid_jax.runtime.run.report.page import FILE, Page
from sid_jax.runtime.storage.files import absolute, reaching

EPILOG = """\
A run writes the page itself, before each checkpoint and at its end; this is for runs from before there was one, and to
have it somewhere else. It needs no devices, and the run may go on meanwhile.

examples:
  python -m sid_jax.report --run runs/digits_1step
  python -m sid_jax.report --run gs://bucket/runs/sd15_1step --out sd15_1step.html"""


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m sid_jax.report", __doc__, EPILOG)
    parser.add_argument("--run", metavar="DIR", required=True, help="the folder of a run, which may go on")
    parser.add_argument("--out", metavar="FILE", help=f"the page (default: {FILE} in the run's folder)")
    arguments = parser.parse_args(argv)
    settings, workdir = config_of_run(arguments.run).to_dict(), absolute(arguments.run)
    out = workdir / FILE if arguments.out is None else absolute(arguments.out)
    check_output(out)
    page = Page(workdir, settings, sid_jax.config.changes(settings))
    try:
        with reaching(workdir):
            page.load()
            page.write(ended=True, path=out)
    except OSError as error:
        raise UserError(f"{out} can't be written: {error.strerror or error}") from error
    print(f"wrote {out}")
