"""Measures what a student, a teacher or a folder of pictures is worth: quality, agreement with prompts, and speed."""

if __name__ == "__main__":  # before the imports: they take seconds, and may fail
    from sid_jax.runtime.cli.start import start

    start("sid_jax.evaluate")

import argparse
import dataclasses
import json
from collections.abc import Sequence

from etils import epath

from sid_jax.errors import UserError
from sid_jax.evaluation.by_protocol import Said, prepared
from sid_jax.evaluation.dinov2_features import NETWORK
from sid_jax.evaluation.measure import measure
from sid_jax.evaluation.places import PLACES, placed
from sid_jax.evaluation.protocols import DIGITS, PROTOCOLS
from sid_jax.evaluation.report import as_text, write_json
from sid_jax.experiment.student import open_model, open_run
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.cli.outputs import check_output, write_output
from sid_jax.runtime.devices import processes
from sid_jax.runtime.storage.files import absolute

EPILOG = f"""\
With --protocol the numbers of a published table are measured: {", ".join(PROTOCOLS)}. docs/evaluate.md says of each
what to download, and what its numbers may be compared with; so does the report.

Without --protocol a table is made by the metric network that the run's config names, as for the digits. It has a row
for the teacher (DDIM with guidance) and one for the student. A lower Frechet distance is better; precision is the share
of images that look real, recall the share of real images that could have been made (diversity), and prompt accuracy the
share of images that show what their prompt asks for.

An exported folder names no folder of the machine that it was made on. Where its teacher, prompts or metric are not
bundled or on the hub, --teacher, --prompts and --metric say where they are.

examples:
  python -m sid_jax.evaluate --run runs/digits_1step
  python -m sid_jax.evaluate --model exported --samples 5000 --json table.json
  python -m sid_jax.evaluate --run runs/cifar10 --protocol cifar10 --reference cifar10-32x32.npz --out measured
  python -m sid_jax.evaluate --images pictures --protocol coco30k --reference coco30k.npz --metrics fid"""

BY_PROTOCOL = (
    ("protocol", "P", "its name"),
    ("metrics", "M,M", "some of its metrics, or more, such as kid (default: those of its table)"),
    ("reference", "FILE", "statistics of real images; METRIC=FILE, several times, where several metrics have one each"),
    ("seeds", "S,S", "of the noise; each is a measurement of its own (default: 0)"),
    ("steps", "K", "steps of the sampler (default: as trained, or as the model's family samples a teacher)"),
    ("guidance", "S", "guidance of a teacher given with --model (default: its family's)"),
    ("batch", "B", "images that a device makes, and measures, at a time (default: by their size)"),
    ("dump", "DIR", "write the images here too: 000000.png, ..., captions.txt"),
    ("out", "DIR", "keep here what was measured, so that the same command goes on where it was"),
    ("inception", "FILE", "weights of Inception, .pth or .safetensors (default: the released ones, fetched once)"),
    ("clip", "PLACE", "folder or hub id of the CLIP model (default: the metric's)"),
    ("dinov2", "PLACE", f"folder or hub id of DINOv2, for fd_dinov2 (default: {NETWORK})"),
)
"""Flags of `--protocol`: name, what stands for a value, and help."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    of_protocols = arguments.protocol is not None and arguments.protocol != DIGITS
    _check(arguments, of_protocols)
    table = absolute(arguments.json) if arguments.json else None
    if table is not None:
        check_output(table, makes_folders=True)
    if of_protocols:
        _by_protocol(arguments, table)
    else:
        _by_own_metric(arguments, table)


def _parser() -> command_line.Parser:
    parser = command_line.Parser("python -m sid_jax.evaluate", __doc__, EPILOG)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", metavar="DIR", help="the folder of a run: its newest checkpoint")
    source.add_argument(
        "--model", metavar="FOLDER", help="a folder that sid_jax.export wrote; with --protocol a teacher too"
    )
    source.add_argument(
        "--images", metavar="PLACE", help="a folder, zip or tar files of pictures that anything made, with --protocol"
    )
    command_line.add_step(parser)
    parser.add_argument(
        "--teacher", metavar="PATH", nargs="?", const="",
        help="where the teacher is (default: what the run's config says); with --protocol it is measured too",
    )  # fmt: skip
    for name in ("prompts", "metric"):
        parser.add_argument(
            f"--{name}", metavar="PATH", help=f"{PLACES[name][1]} (default: what the run's config says)"
        )
    parser.add_argument(
        "--samples",
        metavar="N",
        type=int,
        help="images of each (default: as the protocol has it, or the config)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the table here too")
    by = parser.add_argument_group("by the protocol of a published table")
    for name, what, about in BY_PROTOCOL:
        kind = int if name in ("steps", "batch") else float if name == "guidance" else str
        action = "append" if name == "reference" else "store"
        by.add_argument(f"--{name}", metavar=what, help=about, type=kind, action=action)
    processes.add_arguments(parser)
    return parser


def _check(arguments: argparse.Namespace, of_protocols: bool) -> None:
    """Checks which flags are given together. Raises UserError."""
    given = {name for name, value in vars(arguments).items() if value is not None}
    if of_protocols:
        if "metric" in given:
            raise UserError(f"--metric is for tables without --protocol: {arguments.protocol} has networks of its own")
    else:
        _check_own(arguments, given)
    if "step" in given and not given & {"run", "images"}:  # --images refuses all that is said of generating
        raise UserError("--step is of a run's checkpoints: give it with --run, not with --model")


def _check_own(arguments: argparse.Namespace, given: set[str]) -> None:
    """The same for tables of a config's own metric."""
    if "images" in given:
        raise UserError("--images is measured by a protocol: name one with --protocol")
    for name, _, _ in BY_PROTOCOL[1:]:
        if name in given:
            raise UserError(f"--{name} is of the protocols of published tables: name one with --protocol")
    if arguments.teacher == "":
        raise UserError("--teacher without a PATH is of --protocol: without one the table has the teacher always")
    if given & {"coordinator", "num_processes", "process_id"}:
        raise UserError("--coordinator, --num-processes and --process-id are of --protocol: one process makes a table")


def _by_protocol(arguments: argparse.Namespace, table: epath.Path | None) -> None:
    """Measures by the protocol of a published table."""
    names = {field.name for field in dataclasses.fields(Said)}
    report_of = prepared(Said(**{name: value for name, value in vars(arguments).items() if name in names}))
    processes.join(arguments)
    with processes.detecting_lost_processes():
        report = report_of()
    if processes.is_first():
        print(report)
        if table is not None:
            table.parent.mkdir(parents=True, exist_ok=True)
            write_output(str(table), json.dumps(report.as_json(), indent=2) + "\n")


def _by_own_metric(arguments: argparse.Namespace, table: epath.Path | None) -> None:
    """Makes the table of teacher and student, by the metric that the config names."""
    student = (
        open_run(arguments.run, step=arguments.step, with_teacher=True)
        if arguments.run
        else open_model(arguments.model).student
    )
    if student is None:
        raise UserError(
            f"{arguments.model} is not a student that sid_jax.export wrote: a teacher is measured with --protocol"
        )
    given = {name: getattr(arguments, name) for name in PLACES}
    found = measure(placed(student, given, arguments.model or "", dashes="--"), arguments.samples)
    print(as_text(found))
    if table is not None:
        write_json(found, table)
