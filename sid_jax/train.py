"""Distills a diffusion model, the teacher, into a generator of one or a few steps, the student."""

if __name__ == "__main__":  # before the imports: they take seconds, and may fail
    from sid_jax.runtime.cli.start import start

    start("sid_jax.train", preemptible=True)

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import sid_jax.config
from sid_jax.evaluation.asked import in_turn
from sid_jax.evaluation.in_training import measured_of, open_quality, request_of
from sid_jax.evaluation.measure import (
    StudentQuality,
    beside_teacher,
    check_measurable,
    evaluate,
    open_metric,
)
from sid_jax.evaluation.report import report
from sid_jax.experiment import build
from sid_jax.experiment.condition_cache import open_conditions
from sid_jax.experiment.images import ImageProgram
from sid_jax.experiment.networks import first_state, frozen_base, networks_of, params_of
from sid_jax.experiment.paths import with_absolute_paths
from sid_jax.experiment.shown import Pictures, shown_of
from sid_jax.experiment.streams import open_stream, placed_batch
from sid_jax.experiment.student import Student, open_start
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.devices import processes
from sid_jax.runtime.devices.ending import hearing
from sid_jax.runtime.devices.precision import parse_dtype
from sid_jax.runtime.devices.preemption import Preempted, watching
from sid_jax.runtime.devices.profile import Profile
from sid_jax.runtime.run.checkpoints import Checkpoints, abstract
from sid_jax.runtime.run.log import RunLog, make_workdir
from sid_jax.runtime.run.messages import logging_to
from sid_jax.runtime.run.owner import owning
from sid_jax.runtime.run.progress import Progress
from sid_jax.runtime.run.record import check_checkpoints_are_there, is_teacher_of_run, note_checkpoint, note_teacher
from sid_jax.runtime.run.report.board import Report
from sid_jax.runtime.run.resume import check_same_form, check_same_training
from sid_jax.runtime.run.retention import Keep
from sid_jax.runtime.run.saving import Saving, SavingPolicy
from sid_jax.runtime.run.trial import try_checkpoints
from sid_jax.runtime.run.window import Window
from sid_jax.sid import Frozen, TrainState, jit_train_step

EPILOG = """\
A run lives in its workdir: the resolved config, metrics as JSON lines and for TensorBoard, sample grids, checkpoints.
The same command goes on from the newest checkpoint that is whole. On SIGTERM, and on SIGHUP of a terminal
that goes away, a run saves its state and ends with exit code 75; the same command then goes on.

The family of the teacher decides which settings there are. Those of all teachers are listed first, and then those of
each family.

examples:
  python -m sid_jax.train --config configs/digits_1step.py
  python -m sid_jax.train --config configs/digits_1step.py --workdir runs/kappa2 --config.guidance.kappa4=2
  python -m sid_jax.train --config configs/sd15_1step.py --config.teacher=/models/sd15 --config.prompts=prompts.txt
  launch/ has scripts for TPU pods and clusters of GPUs"""


SHOWN = {"fake": "fake_loss", "generator": "generator_loss", "gap": "teacher_fake_gap"}
"""The metrics beside the progress, by the names that they have there."""

RESUME = ("auto", "force", "restart")
"""How a run goes on that is there: as it was, although settings differ, or anew although its checkpoints are gone."""

say = logging.getLogger("sid_jax.train").info


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m sid_jax.train", __doc__, EPILOG)
    parser.add_argument("--workdir", metavar="DIR", help="the run's folder (default: runs/<name of the config file>)")
    parser.add_argument(
        "--resume", choices=RESUME, default="auto",
        help="force: go on although settings, prompts or teacher are not those that the run was started with; "
        "restart: begin anew in a folder whose checkpoints are gone",
    )  # fmt: skip
    parser.add_argument(
        "--profile", metavar="START:STOP", default="", help="trace updates START+1 to STOP to WORKDIR/profile"
    )
    processes.add_arguments(parser)
    arguments, config = sid_jax.config.parse(parser, argv)
    processes.join(arguments)
    workdir = arguments.workdir or f"runs/{Path(arguments.config).stem}"
    distill(config, workdir, arguments.resume, arguments.profile)


def distill(config: ConfigDict, workdir: str, resume: str = "auto", profile: str = "") -> None:
    """Trains in a folder that is this run's alone meanwhile, which is also told what the run says; see `train`.

    resume: one of `RESUME`.
    """
    # Told to end, the process ends at once, but for the loop: before it nothing is lost, and after it all is saved.
    with (
        hearing(),
        processes.detecting_lost_processes(),
        owning(folder := make_workdir(workdir)),
        logging_to(folder),
    ):
        train(config, workdir, force=resume == "force", restart=resume == "restart", profile=profile)


def train(config: ConfigDict, workdir: str, force: bool = False, restart: bool = False, profile: str = "") -> None:
    """Trains, or goes on with, the run in `workdir`. Of several processes each calls this, with the same arguments.

    Args:
      config: the resolved settings.
      workdir: the run's folder.
      force: go on although settings, prompts or teacher are not those that the run was started with.
      restart: begin anew although the run has had checkpoints, which are gone.
      profile: "START:STOP", the updates to trace.

    Raises:
      UserError: a setting, a file or the workdir is unusable; or the losses stayed non-finite.
      Preempted: the process was told to end, and has saved.
    """
    began = time.perf_counter()

    # ---- Devices, and the folder of the run.
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.fsdp)
    meshes.check_batch(config.batch, config.accumulation, mesh)
    total = -(-config.images // config.batch)
    sid_jax.config.check(config)
    config = with_absolute_paths(config, workdir)
    resolved = config.to_dict()
    metric = open_metric(config, config.evaluate.samples) if config.evaluate.metric else None
    protocol = request_of(config)
    folder = make_workdir(workdir)
    check_checkpoints_are_there(folder, restart)
    profiling = Profile(profile, folder / "profile")

    # ---- The teacher, but for its denoiser, and the method's settings for it.
    devices = f"{mesh.size} {jax.devices()[0].platform} device(s) in {jax.process_count()} process(es)"
    teacher = build.open_teacher(config, "space", mesh=mesh)
    if metric:  # what the end needs is refused now
        check_measurable(config, teacher, metric)
    elif config.evaluate.pictures:
        teacher.sampler(config.evaluate.teacher_steps, config.evaluate.teacher_guidance)
    fingerprints = teacher.fingerprints()
    asked = build.asked_of(config, teacher.conditions)
    measured = measured_of(protocol, config, teacher.conditions, asked) if protocol else []
    shown = shown_of(config, teacher.conditions, asked)
    say(f"teacher: {config.teacher}; {len(asked)} {teacher.conditions.noun}; {devices}")
    few_step = build.few_step_of(config, teacher.process)
    times = build.times_of(config, teacher.process)
    settings = build.settings_of(config, teacher.space.shape(config.resolution))
    regularization = build.regularization_of(config, teacher)
    besides = [*shown, *measured]
    teacher = dataclasses.replace(teacher, conditions=open_conditions(config, teacher, asked, mesh, workdir, besides))
    empty = meshes.place(teacher.conditions.empty(), meshes.replicated(mesh))
    rows = meshes.local_rows(config.batch, mesh).tolist()
    stream, space = open_stream(config, settings.gan, teacher, asked, rows)

    # ---- The state, new or that of the newest checkpoint; and the teacher's denoiser.
    stored = parse_dtype("precision.teacher", config.precision.teacher)
    create = functools.partial(TrainState.create, optimizer=settings.optimizer)
    shapes = jax.eval_shape(create, teacher.denoiser.params)
    shardings = meshes.parameter_shardings(shapes, mesh)
    with contextlib.ExitStack() as closing:
        preemption = closing.enter_context(watching())
        checkpoints = closing.enter_context(Checkpoints(folder / "checkpoints", Keep.from_config(resolved)))
        try_checkpoints(checkpoints.folder)
        if checkpoints.latest() is None:
            state, base = first_state(teacher, settings.optimizer, stored, mesh, open_start(config, teacher, mesh))
            window = Window(config.batch)
        else:
            check_same_form(checkpoints.state_names(), vars(shapes), workdir)
            same_teacher = is_teacher_of_run(folder, fingerprints, force)
            defaults = sid_jax.config.schema_of(resolved).to_dict()
            check_same_training(checkpoints.config(), resolved, workdir, force, same_teacher, defaults)
            restored = checkpoints.restore(abstract(shapes, shardings))
            stream.restore(restored.data_position, force=force)
            state, window = restored.state, Window(config.batch, restored.metrics.get("window"))
            base = frozen_base(teacher, stored, mesh)
        step = int(state.step)
        frozen = Frozen(base, params_of(teacher.conditions.parts), space)
        changes = sid_jax.config.changes(resolved)
        log = closing.enter_context(contextlib.closing(RunLog(folder, resolved, step, changes)))
        note_teacher(folder, fingerprints)
        progress = closing.enter_context(contextlib.closing(Progress(total * config.batch, step * config.batch)))

        # ---- One compiled program for both updates and the average, in each phase of the GAN term's schedule.
        networks = networks_of(teacher, config.resolution, mesh, regularization)
        out = (shardings, meshes.replicated(mesh))
        train_step = jit_train_step(networks, few_step, times, settings, out_shardings=out)
        program = ImageProgram(teacher, few_step, config.resolution, config.sample_images, mesh, strict=False)
        pictures = Pictures(program, shown, config.seed)
        qualities: list[Callable[[Any], dict[str, float]]] = []
        if metric and config.evaluate.every:
            program = ImageProgram(teacher, few_step, config.resolution, mesh=mesh, strict=False)
            qualities.append(StudentQuality(program, metric, in_turn(asked, config.evaluate.samples), config.seed))
        if protocol:
            qualities.append(open_quality(protocol, config, teacher, few_step, mesh, measured))
        if step == 0:
            log.picture(0, "student", pictures(state.ema))
        if step < total:
            say(f"{'going on' if step else 'starting'} at update {step} of {total}; compiling the train step")
        saving = Saving(
            checkpoints,
            log,
            SavingPolicy.from_config(resolved),
            resolved,
            completed=functools.partial(note_checkpoint, folder),
        )
        closing.enter_context(contextlib.closing(profiling))

        # ---- The loop.
        preempted = False
        while step < total and not preempted:
            profiling.before(step)
            batch, corrupted = placed_batch(next(stream), config.batch, empty, mesh)
            state, metrics = train_step(state, frozen, batch, settings.phase(step))
            if corrupted is not None:
                metrics["corrupted_images"] = jnp.sum(corrupted, dtype=jnp.float32)
            step += 1
            window.add(metrics)
            values = {}
            profiling.after(step, metrics)
            preempted = preemption.reached(step)
            if step % config.log_every == 0 or step == total:
                values = window.summary()
                if qualities and step % config.evaluate.every == 0:
                    for quality in qualities:
                        values |= quality(state.ema)
                    saving.measured(values)
                log.metrics(step, step * config.batch, values, saving.poll())
                progress.update(step * config.batch, {name: values[key] for name, key in SHOWN.items()})
                saving.stop_if_bad(window, step)
                window.restart()
            elif step % config.max_bad_steps == 0:
                saving.stop_if_bad(window, step)
            if step % config.sample_every == 0 or step == total:
                log.picture(step, "student", pictures(state.ema))
            if saving.due(step) or step == total or preempted:
                saving.save(step, state, stream.position(), window, values)
        saving.finish(step)
        if preempted or preemption.told:
            raise Preempted(f"preempted at update {step} of {total}: {summary(step, config, folder, began)}")

    # ---- Teacher beside student: a picture, and the table.
    student = Student(teacher, state.ema, few_step, config, step)
    del state, frozen, base  # room for the teacher in float32
    found = picture = None
    if metric:
        say("measuring teacher and student ...")
        found = evaluate(student, metric, config.evaluate.samples, mesh)
    if config.evaluate.pictures and (not metric or config.sample_prompts):
        say("sampling teacher and student ...")
        picture = beside_teacher(student, shown[: config.evaluate.pictures], mesh)
    checkpoints.check_there()
    if processes.is_first():
        report(found, picture, folder)
        Report(folder, resolved, changes, step).finish()
    say(f"done: {summary(step, config, folder, began)}")


def summary(step: int, config: ConfigDict, folder: Any, began: float) -> str:
    """What was reached, and where it is."""
    minutes = (time.perf_counter() - began) / 60
    return (
        f"{step} updates, {step * config.batch} images, the last {minutes:.1f} minutes of them now; the run is in "
        f"{folder}, its newest checkpoint in {folder / 'checkpoints' / str(step)}"
    )
