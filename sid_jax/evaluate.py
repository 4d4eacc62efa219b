"""Measures a distilled student beside its teacher: quality, agreement with the prompts, and speed."""

if __name__ == "__main__":  # before the imports: they take seconds, and may fail
    from sid_jax.runtime.cli.start import start

    start("sid_jax.evaluate")

from collections.abc import Sequence

from sid_jax.errors import UserError
from sid_jax.evaluation.measure import measure
from sid_jax.evaluation.places import PLACES, placed
from sid_jax.evaluation.report import as_text, write_json
from sid_jax.experiment.student import open_model, open_run
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.cli.outputs import check_output
from sid_jax.runtime.storage.files import absolute

EPILOG = """\
The table has a row for the teacher (DDIM with guidance) and one for the student. A lower Frechet distance is better;
precision is the share of images that look real, recall the share of real images that could have been made (diversity),
and prompt accuracy the share of images that show what their prompt asks for.

An exported folder names no folder of the machine that it was made on. Where its teacher, prompts or metric are not
bundled or on the hub, --teacher, --prompts and --metric say where they are.

examples:
  python -m sid_jax.evaluate --run runs/digits_1step
  python -m sid_jax.evaluate --model exported --samples 5000 --json table.json"""


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m sid_jax.evaluate", __doc__, EPILOG)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", metavar="DIR", help="the folder of a run: its newest checkpoint")
    source.add_argument("--model", metavar="FOLDER", help="a folder that sid_jax.export wrote")
    command_line.add_step(parser)
    for name, (_, what) in PLACES.items():
        parser.add_argument(f"--{name}", metavar="PATH", help=f"{what} (default: what the run's config says)")
    parser.add_argument("--samples", metavar="N", type=int, help="images of each (default: what the run's config says)")
    parser.add_argument("--json", metavar="FILE", help="write the table here too")
    arguments = parser.parse_args(argv)
    table = absolute(arguments.json) if arguments.json else None
    if arguments.step is not None and not arguments.run:
        raise UserError("--step is of a run's checkpoints: give it with --run, not with --model")
    if table is not None:
        check_output(table, makes_folders=True)
    student = (
        open_run(arguments.run, step=arguments.step, with_teacher=True)
        if arguments.run
        else open_model(arguments.model).student
    )
    if student is None:
        raise UserError(f"{arguments.model} is not a student that sid_jax.export wrote: there is none to measure")
    given = {name: getattr(arguments, name) for name in PLACES}
    found = measure(placed(student, given, arguments.model or "", dashes="--"), arguments.samples)
    print(as_text(found))
    if table is not None:
        write_json(found, table)
