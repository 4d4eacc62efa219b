"""Compiles a run for accelerators that need not be here, and says how well it fits; or measures it on those here.

Neither weights nor an accelerator are needed to plan: the compilers of TPUs and GPUs run on the CPU of this machine,
which for Stable Diffusion takes 6 to 20 minutes and, for GPUs, 7 to 10 GB of memory, for TPUs 16 to 21 GB. Measuring
needs no weights either: they are random, and nothing is saved.
"""

if __name__ == "__main__":  # before the imports: they take seconds, and may fail
    from sid_jax.runtime.cli.start import start

    start("sid_jax.plan")

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

import sid_jax.config
from sid_jax.errors import UserError
from sid_jax.evaluation.planned import feature_networks_memory, with_feature_networks
from sid_jax.planning import targets
from sid_jax.planning.compile import Compiled, compile_for
from sid_jax.planning.measured import OutOfMemory, run_measured
from sid_jax.planning.program import build_program
from sid_jax.planning.report import measure, table, table_of_measured, with_measured
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.cli.outputs import check_output, write_output
from sid_jax.runtime.devices import processes

DOES_NOT_FIT = 3
"""The exit code of a plan that does not fit. A traceback, whose code is 1, says nothing about that."""
UPDATES, MOST_UPDATES = 10, 10**6
"""That `--measure` times."""
MOST_IMAGES = 2**16
"""Images a chip that the search for the largest batch stops at: a CPU's memory, for one, is taken for endless."""

EPILOG = f"""\
targets: {targets.FORMS}

With --measure, all devices that JAX has here are measured, those of all processes together; --target is not needed.

exit codes: 0 it fits; {DOES_NOT_FIT} it does not, or devices that are here are out of memory; 2 an error in the
  arguments or the config; 1 a defect of ours

examples:
  python -m sid_jax.plan --config configs/sd15_1step.py --target tpu:v5e:2x4 --config.batch=32
  python -m sid_jax.plan --config configs/sd15_1step.py --target gpu:h100:8 --config.mesh.fsdp=8 --find-batch
  python -m sid_jax.plan --config configs/sd15_1step.py --measure --config.batch=32"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = command_line.Parser("python -m sid_jax.plan", __doc__, EPILOG)
    parser.add_argument("--target", metavar="T", help="what to compile for, such as tpu:v5e:2x4")
    parser.add_argument(
        "--measure", action="store_true", help="run the step on the devices that are here: time, memory, images/s"
    )
    parser.add_argument(
        "--updates", metavar="N", type=int, help="with --measure, updates to time (default: 10; two more come first)"
    )
    parser.add_argument(
        "--find-batch", action="store_true", help="find the most images a chip that fit; compiles often"
    )
    parser.add_argument("--full-effort", action="store_true", help="let the compiler take its time, as in training")
    parser.add_argument("--json", metavar="FILE", help="write the figures here too")
    parser.add_argument("--hlo", metavar="FILE", help="write the compiled program's text here")
    processes.add_arguments(parser)
    arguments, config = sid_jax.config.parse(parser, argv)
    _check(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # of the compilers' log only errors
    for file in filter(None, (arguments.json, arguments.hlo)):
        check_output(file)
    if arguments.measure:
        processes.join(arguments)
        with processes.detecting_lost_processes():
            return _measure(arguments, config)
    _stay_on_the_cpu()

    target = targets.parse(arguments.target)
    if arguments.find_batch and target.platform == "cpu":
        raise UserError(f"--find-batch: {target.name} has no memory of its own to fill; name a TPU or a GPU")
    print(f"target       {target.name}: {target.count} chip(s) of {target.chip.memory / 1e9:.2f} GB", flush=True)

    networks = feature_networks_memory(config, target)

    def plan(config: ConfigDict) -> tuple[dict[str, Any], Compiled]:
        figures, compiled = _plan(config, target, quick=not arguments.full_effort)
        return with_feature_networks(figures, networks), compiled

    figures, compiled = plan(config)
    if arguments.find_batch:
        figures, compiled = _find_batch(config, target.count, plan, (figures, compiled))
    print(table(figures))
    _write(arguments, figures, compiled)
    return 0 if figures["fits"] else DOES_NOT_FIT


def _check(arguments: argparse.Namespace) -> None:
    """Checks which flags are given together."""
    if not arguments.measure:
        if arguments.target is None:
            raise UserError("--target is missing: name what to compile for, or --measure the devices that are here")
        if arguments.updates is not None:
            raise UserError("--updates is of --measure: give both, or neither")
        if any(flag is not None for flag in (arguments.coordinator, arguments.num_processes, arguments.process_id)):
            raise UserError("--coordinator, --num-processes and --process-id are of --measure: one process plans")
    elif arguments.find_batch:
        raise UserError("--find-batch plans and --measure runs: find the batch first, then measure --config.batch=IT")
    if arguments.updates is not None and not 1 <= arguments.updates <= MOST_UPDATES:
        raise UserError(f"--updates is {arguments.updates}: use 1 to {MOST_UPDATES}")


def _measure(arguments: argparse.Namespace, config: ConfigDict) -> int:
    """What `--measure` does; every process does it, and the first one prints. Returns the exit code."""
    target = targets.present(arguments.target)

    def say(text: str) -> None:
        if processes.is_first():
            print(text, flush=True)

    memory = f", {target.chip.memory / 1e9:.2f} GB each" if math.isfinite(target.chip.memory) else ""
    say(f"devices      {target.name}{memory}; compiling the train step as for training")
    program = build_program(config, target.open())
    compiled = compile_for(target, program.step.lower(*program.arguments), quick=False, as_trained=True)
    figures = measure(config, target, program, compiled)
    say(table(figures))
    fits = compiled.executable is not None
    if fits:
        try:
            figures = with_measured(figures, run_measured(program, compiled, arguments.updates or UPDATES))
            say(table_of_measured(figures))
        except OutOfMemory as error:
            print(f"error: {error}", file=sys.stderr)
            fits = False
    if processes.is_first():
        _write(arguments, figures, compiled)
    return 0 if fits else DOES_NOT_FIT


def _write(arguments: argparse.Namespace, figures: dict[str, Any], compiled: Compiled) -> None:
    if arguments.json:
        write_output(arguments.json, json.dumps(figures, indent=1) + "\n")
    if arguments.hlo:
        write_output(arguments.hlo, compiled.text)


def _stay_on_the_cpu() -> None:
    """Of JAX's platforms the CPU only: what is compiled for is not here."""
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
