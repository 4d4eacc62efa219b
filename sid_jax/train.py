"""Distills a text-to-image diffusion model into a generator of one or a few steps."""

import contextlib
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import sid_jax.config
from sid_jax import assets
from sid_jax.data.prompts import read_prompt_file
from sid_jax.data.streams import PromptStream
from sid_jax.evaluation.measure import StudentQuality, evaluate, open_metric
from sid_jax.evaluation.report import report
from sid_jax.experiment import build
from sid_jax.experiment.condition_cache import Text, open_text
from sid_jax.experiment.images import TextToImage
from sid_jax.experiment.networks import networks_of
from sid_jax.experiment.streams import with_real_images
from sid_jax.experiment.student import Student
from sid_jax.families.stable_diffusion import PARTS, Teacher
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.devices import processes
from sid_jax.runtime.devices.precision import parse_dtype
from sid_jax.runtime.devices.preemption import Preempted, watching
from sid_jax.runtime.devices.profile import Profile
from sid_jax.runtime.run.checkpoints import Checkpoints, abstract
from sid_jax.runtime.run.log import RunLog, make_workdir
from sid_jax.runtime.run.messages import telling
from sid_jax.runtime.run.pictures import image_grid
from sid_jax.runtime.run.progress import Progress
from sid_jax.runtime.run.resume import check_same_training
from sid_jax.runtime.run.retention import Keep
from sid_jax.runtime.run.saving import Saving
from sid_jax.runtime.run.window import Window
from sid_jax.sid import FewStep, TrainState, jit_train_step

EPILOG = """\
A run lives in its workdir: the resolved config, metrics as JSON lines and for TensorBoard, sample grids, checkpoints.
Run the same command again and it goes on from the newest checkpoint that is whole. On SIGTERM it saves and ends with
exit code 75: run the same command again.

examples:
  python -m sid_jax.train --config configs/digits_1step.py
  python -m sid_jax.train --config configs/digits_1step.py --workdir runs/kappa2 --config.guidance.kappa4=2
  python -m sid_jax.train --config configs/sd15_1step.py --config.teacher=/models/sd15 --config.prompts=prompts.txt
  launch/ has scripts for TPU pods and clusters of GPUs"""


say = logging.getLogger("sid_jax.train").info


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m sid_jax.train", __doc__, EPILOG)
    parser.add_argument("--workdir", metavar="DIR", help="the run's folder (default: runs/<name of the config file>)")
    parser.add_argument(
        "--resume", choices=("auto", "force"), default="auto",
        help="force: go on although settings or prompts are not those that the run was started with",
    )  # fmt: skip
    parser.add_argument("--profile", metavar="START:STOP", default="", help="trace these updates into WORKDIR/profile")
    processes.add_arguments(parser)
    arguments, config = command_line.parse_with_config(parser, argv, sid_jax.config.default())
    processes.join(arguments)
    workdir = arguments.workdir or f"runs/{Path(arguments.config).stem}"
    with processes.noticing_losses(), telling(make_workdir(workdir)):
        train(config, workdir, force=arguments.resume == "force", profile=arguments.profile)


def train(config: ConfigDict, workdir: str, force: bool = False, profile: str = "") -> None:
    """Trains, or goes on with, the run in `workdir`. Of several processes each calls this, with the same arguments.

    Args:
      config: the resolved settings.
      workdir: the run's folder.
      force: go on although the settings or prompts are not those that the run was started with.
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
    metric = open_metric(config, config.evaluate.samples) if config.evaluate.metric else None
    prompts = read_prompt_file(assets.resolve(config.prompts))
    folder = make_workdir(workdir)
    profiling = Profile(profile, folder / "profile")

    # ---- The teacher, but for its UNet, and the method's settings for it.
    devices = f"{mesh.size} {jax.devices()[0].platform} device(s) in {jax.process_count()} process(es)"
    say(f"teacher: {config.teacher}; {len(prompts)} prompts; {devices}")
    teacher = build.open_teacher(config, parts=("vae",), fetch=PARTS, mesh=mesh)
    sampler = build.sampler_of(config, teacher)
    settings = build.settings_of(config, teacher)
    text = open_text(config, teacher, prompts, mesh, workdir)
    empty = meshes.place(text.read([""]), meshes.replicated(mesh))
    rows = meshes.local_rows(config.batch, mesh)
    stream = PromptStream(prompts, config.batch, config.seed, text.read, rows)
    stream, frozen_encoder = with_real_images(stream, config, settings, teacher, text.read, rows)

    # ---- The state, new or that of the newest checkpoint; and the teacher's UNet.
    stored = parse_dtype("precision.teacher", config.precision.teacher)
    shapes = jax.eval_shape(TrainState.create, teacher.unet.params)
    shardings = meshes.parameter_shardings(shapes, mesh)
    with contextlib.ExitStack() as closing:
        checkpoints = closing.enter_context(Checkpoints(folder / "checkpoints", Keep.of(config)))
        if checkpoints.latest() is None:
            params = teacher.unet.load(dtype=None, place=meshes.into_shards(mesh, jnp.float32)).params
            state, unet = build.new_state(params, stored, mesh)
            window = Window(config.batch)
        else:
            check_same_training(checkpoints.config(), config, workdir, force)
            restored = checkpoints.restore(abstract(shapes, shardings))
            stream.restore(restored.data_position, force=force)
            state, window = restored.state, Window(config.batch, restored.metrics.get("window"))
            unet = teacher.unet.load(dtype=None, place=meshes.into_shards(mesh, stored)).params
        step = int(state.step)
        frozen = {"teacher": unet, "text": text.params, **frozen_encoder}
        log = closing.enter_context(contextlib.closing(RunLog(folder, config, step)))
        progress = closing.enter_context(contextlib.closing(Progress(total * config.batch, step * config.batch)))

        # ---- One compiled program for both updates and the average, in each phase of the GAN term's schedule.
        networks = networks_of(teacher, config.resolution, mesh, text)
        train_step = jit_train_step(
            networks, sampler.process, settings, out_shardings=(shardings, meshes.replicated(mesh))
        )
        pictures = Pictures(teacher, sampler, config, prompts, text, mesh)
        quality = None
        if config.evaluate.every:
            quality = StudentQuality(teacher, sampler, config, prompts, metric, text, mesh)
        if step == 0:
            log.picture(0, "student", pictures(state.ema))
        if step < total:
            say(f"{'going on' if step else 'starting'} at update {step} of {total}; compiling the train step")
        saving = Saving(checkpoints, log, config)
        closing.enter_context(contextlib.closing(profiling))
        preemption = closing.enter_context(watching())

        # ---- The loop.
        preempted = False
        while step < total and not preempted:
            profiling.before(step)
            batch = meshes.place_batch(next(stream), config.batch, mesh) | {"empty": empty}
            corrupted = batch["real"].pop("corrupted") if "real" in batch else None
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
                if quality and step % config.evaluate.every == 0:
                    values |= quality(state.ema)
                log.metrics(step, step * config.batch, values, saving.look())
                progress.update(step * config.batch, {name: values[f"{name}_loss"] for name in ("fake", "generator")})
                saving.stop_if_bad(window, step)
                window.restart()
            elif step % config.max_bad_steps == 0:
                saving.stop_if_bad(window, step)
            if step % config.sample_every == 0 or step == total:
                log.picture(step, "student", pictures(state.ema))
            if saving.due(step) or step == total or preempted:
                saving.save(step, state, stream.position(), window, values)
        saving.finish(step)
        if preempted:
            raise Preempted(f"preempted at update {step} of {total}: {summary(step, config, folder, began)}")

    # ---- The table.
    if metric:
        say("measuring teacher and student ...")
        student = Student(teacher, state.ema, sampler, config, step)
        del state, frozen, unet  # room for the teacher in float32
        found = evaluate(student, metric, config.evaluate.samples, mesh)
        if processes.is_first():
            report(found, folder)
    say(f"done: {summary(step, config, folder, began)}")


def summary(step: int, config: ConfigDict, folder: Any, began: float) -> str:
    """What was reached, and where it is."""
    minutes = (time.perf_counter() - began) / 60
    return (
        f"{step} updates, {step * config.batch} images, the last {minutes:.1f} minutes of them now; the run is in "
        f"{folder}, its newest checkpoint in {folder / 'checkpoints' / str(step)}"
    )


class Pictures:
    """Sample grids of the student, always of the same prompts and noise."""

    def __init__(
        self,
        teacher: Teacher,
        sampler: FewStep,
        config: ConfigDict,
        prompts: list[str],
        text: Text,
        mesh: jax.sharding.Mesh,
    ):
        count = config.sample_images
        chosen = np.linspace(0, len(prompts), count, endpoint=False).astype(int)
        self._prompts = [prompts[i] for i in chosen]
        self._generate = TextToImage(teacher, sampler, config.resolution, count, text, mesh)
        self._seed = config.seed

    def __call__(self, params: Any):
        """A picture of the images that the parameters make."""
        return image_grid(self._generate(params, self._prompts, self._seed))


if __name__ == "__main__":
    sys.exit(command_line.run(main))
