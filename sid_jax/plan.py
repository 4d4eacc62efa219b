"""Compiles a run for accelerators that need not be here, and says whether and how well it fits.

Neither weights nor an accelerator are needed: the compilers of TPUs and GPUs run on the CPU of this machine, which for
Stable Diffusion takes 6 to 20 minutes and, for GPUs, 7 to 10 GB of memory, for TPUs 16 to 21 GB.
"""

if __name__ == "__main__":  # before the imports: they take seconds, and may fail
    from sid_jax.runtime.cli.start import start

    start("sid_jax.plan")

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

import sid_jax.config
from sid_jax.errors import UserError
from sid_jax.planning import targets
from sid_jax.planning.compile import Compiled, compile_for
from sid_jax.planning.program import build_program
from sid_jax.planning.report import measure, table
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.cli.outputs import check_output, write_output

DOES_NOT_FIT = 3
"""The exit code of a plan that does not fit. A traceback, whose code is 1, says nothing about that."""
MOST_IMAGES = 2**16
"""Images a chip that the search for the largest batch stops at: a CPU's memory, for one, is taken for endless."""

EPILOG = f"""\
targets: {targets.FORMS}

exit codes: 0 it fits; {DOES_NOT_FIT} it does not; 2 an error in the arguments or the config; 1 a defect of ours

examples:
  python -m sid_jax.plan --config configs/sd15_1step.py --target tpu:v5e:2x4 --config.batch=32
  python -m sid_jax.plan --config configs/sd15_1step.py --target gpu:h100:8 --config.mesh.fsdp=8 --find-batch"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = command_line.Parser("python -m sid_jax.plan", __doc__, EPILOG)
    parser.add_argument("--target", metavar="T", required=True, help="what to compile for, such as tpu:v5e:2x4")
    parser.add_argument(
        "--find-batch", action="store_true", help="find the most images a chip that fit; compiles often"
    )
    parser.add_argument("--full-effort", action="store_true", help="let the compiler take its time, as in training")
    parser.add_argument("--json", metavar="FILE", help="write the figures here too")
    parser.add_argument("--hlo", metavar="FILE", help="write the compiled program's text here")
    schema, chapters = sid_jax.config.schema_of, sid_jax.config.chapters()
    arguments, config = command_line.parse_with_config(parser, argv, schema, chapters)
    _stay_on_the_cpu()
    for file in filter(None, (arguments.json, arguments.hlo)):
        check_output(file)

    target = targets.parse(arguments.target)
    if arguments.find_batch and target.platform == "cpu":
        raise UserError(f"--find-batch: {target.name} has no memory of its own to fill; name a TPU or a GPU")
    print(f"target       {target.name}: {target.count} chip(s) of {target.chip.memory / 1e9:.2f} GB", flush=True)

    def plan(config: ConfigDict) -> tuple[dict[str, Any], Compiled]:
        return _plan(config, target, quick=not arguments.full_effort)

    figures, compiled = plan(config)
    if arguments.find_batch:
        figures, compiled = _find_batch(config, target.count, plan, (figures, compiled))
    print(table(figures))
    if arguments.json:
        write_output(arguments.json, json.dumps(figures, indent=1) + "\n")
    if arguments.hlo:
        write_output(arguments.hlo, compiled.text)
    return 0 if figures["fits"] else DOES_NOT_FIT


def _stay_on_the_cpu() -> None:
    """Of the compilers' log only errors, and of JAX's platforms the CPU only: what is compiled for is not here."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")


def _plan(config: ConfigDict, target: targets.Target, *, quick: bool) -> tuple[dict[str, Any], Compiled]:
    program = build_program(config, target.open())
    compiled = compile_for(target, program.step.lower(*program.arguments), quick=quick)
    return measure(config, target, program, compiled), compiled


Plan = tuple[dict[str, Any], Compiled]


def _find_batch(config: ConfigDict, chips: int, plan: Callable[[ConfigDict], Plan], first: Plan) -> Plan:
    """The plan of the most images a chip that fit, by doubling and then halving the interval; else the first one."""
    tried = {config.batch // (config.accumulation * chips): first}

    def fits(images: int) -> bool:
        if images not in tried:
            changed = config.copy_and_resolve_references()
            changed.batch = images * config.accumulation * chips
            tried[images] = plan(changed)
        figures, _ = tried[images]
        print(
            f"  {images} images a chip: {figures['bytes_per_chip']['peak'] / 1e9:.2f} GB", file=sys.stderr, flush=True
        )
        return bool(figures["fits"])

    largest, too_many = 0, next(iter(tried))
    while fits(too_many):
        if too_many >= MOST_IMAGES:
            print(f"  the search ends at {too_many} images a chip", file=sys.stderr, flush=True)
            figures, compiled = tried[too_many]
            return figures | {"largest_images_per_chip": too_many}, compiled
        largest, too_many = too_many, 2 * too_many
    while too_many - largest > 1:
        middle = (largest + too_many) // 2
        if fits(middle):
            largest = middle
        else:
            too_many = middle
    figures, compiled = tried[largest] if largest else first
    return figures | {"largest_images_per_chip": largest}, compiled
