"""Distills a text-to-image diffusion model into a generator of one or a few steps."""

import contextlib
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
from sid_jax import assets, experiment
from sid_jax.data.prompts import PromptStream, read_prompt_file
from sid_jax.errors import UserError
from sid_jax.evaluate import evaluate, open_metric, report
from sid_jax.experiment import Student
from sid_jax.pipeline import TextToImage, networks_of
from sid_jax.real_images import with_real_images
from sid_jax.runtime import command_line, processes
from sid_jax.runtime import mesh as meshes
from sid_jax.runtime.checkpoints import Checkpoints, abstract
from sid_jax.runtime.pictures import image_grid
from sid_jax.runtime.precision import parse_dtype
from sid_jax.runtime.progress import Progress
from sid_jax.runtime.resume import check_same_training
from sid_jax.runtime.run_log import RunLog, make_workdir
from sid_jax.runtime.window import Window
from sid_jax.sid import FewStep, TrainState, jit_train_step
from sid_jax.teachers import PARTS, Teacher
from sid_jax.text import Text, open_text

EPILOG = """\
A run lives in its workdir: the resolved config, metrics as JSON lines and for TensorBoard, sample grids, checkpoints.
Run the same command again and it goes on from the newest checkpoint.

examples:
  python -m sid_jax.train --config configs/digits_1step.py
  python -m sid_jax.train --config configs/digits_1step.py --workdir runs/kappa2 --config.guidance.kappa4=2
  python -m sid_jax.train --config configs/sd15_1step.py --config.teacher=/models/sd15 --config.prompts=prompts.txt
  launch/ has scripts for TPU pods and clusters of GPUs"""


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m sid_jax.train", __doc__, EPILOG)
    parser.add_argument("--workdir", metavar="DIR", help="the run's folder (default: runs/<name of the config file>)")
    processes.add_arguments(parser)
    arguments, config = command_line.parse_with_config(parser, argv, sid_jax.config.default())
    processes.join(arguments)
    train(config, arguments.workdir or f"runs/{Path(arguments.config).stem}")


def train(config: ConfigDict, workdir: str) -> None:
    """Trains, or goes on with, the run in `workdir`. Of several processes each calls this, with the same arguments.

    Raises:
      UserError: a setting, a file or the workdir is unusable; or the losses stayed non-finite.
    """
    began = time.perf_counter()

    # ---- Devices, and the folder of the run.
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.fsdp)
    meshes.check_batch(config.batch, config.accumulation, mesh)
    total = -(-config.images // config.batch)
    check_cadence(config)
    metric = open_metric(config, config.evaluate.samples) if config.evaluate.metric else None
    prompts = read_prompt_file(assets.resolve(config.prompts))
    folder = make_workdir(workdir)

    # ---- The teacher, but for its UNet, and the method's settings for it.
    devices = f"{mesh.size} {jax.devices()[0].platform} device(s) in {jax.process_count()} process(es)"
    say(f"teacher: {config.teacher}; {len(prompts)} prompts; {devices}")
    teacher = experiment.open_teacher(config, parts=("vae",), fetch=PARTS, mesh=mesh)
    sampler = experiment.sampler_of(config, teacher)
    settings = experiment.settings_of(config, teacher)
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
        checkpoints = closing.enter_context(
            contextlib.closing(Checkpoints(folder / "checkpoints", config.keep_checkpoints))
        )
        if checkpoints.latest() is None:
            params = teacher.unet.load(dtype=None, place=meshes.into_shards(mesh, jnp.float32)).params
            state, unet = experiment.new_state(params, stored, mesh)
            window = Window(config.batch)
        else:
            check_same_training(checkpoints.config(), config, workdir)
            restored = checkpoints.restore(abstract(shapes, shardings))
            stream.restore(restored.data_position)
            state, window = restored.state, Window(config.batch, restored.metrics["window"])
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
        if step == 0:
            log.picture(0, "student", pictures(state.ema))
        if step < total:
            progress.say(f"{'going on' if step else 'starting'} at update {step} of {total}; compiling the train step")

        # ---- The loop.
        while step < total:
            batch = meshes.place_batch(next(stream), config.batch, mesh) | {"empty": empty}
            corrupted = batch["real"].pop("corrupted") if "real" in batch else None
            state, metrics = train_step(state, frozen, batch, settings.phase(step))
            if corrupted is not None:
                metrics["corrupted_images"] = jnp.sum(corrupted, dtype=jnp.float32)
            step += 1
            window.add(metrics)
            if step % config.log_every == 0 or step == total:
                values = window.summary()
                log.metrics(step, step * config.batch, values)
                progress.update(step * config.batch, {name: values[f"{name}_loss"] for name in ("fake", "generator")})
                stop_if_bad(window, step, config, workdir)
                window.restart()
            if step % config.sample_every == 0 or step == total:
                log.picture(step, "student", pictures(state.ema))
            if step % config.checkpoint_every == 0 or step == total:
                log.flush()
                checkpoints.save(step, state, stream.position(), config, {"window": window.pending()})

    # ---- The table.
    if metric:
        say("measuring teacher and student ...")
        student = Student(teacher, state.ema, sampler, config, step)
        del state, frozen, unet  # room for the teacher in float32
        found = evaluate(student, metric, config.evaluate.samples, mesh)
        if processes.is_first():
            report(found, folder)
    minutes = (time.perf_counter() - began) / 60
    say(f"done: {step} updates, {step * config.batch} images, {minutes:.1f} minutes; the run is in {workdir}")


def check_cadence(config: ConfigDict) -> None:
    """Raises UserError for a count that is not positive."""
    for key in ("images", "log_every", "sample_every", "checkpoint_every", "max_bad_steps", "sample_images"):
        if config[key] < 1:
            raise UserError(f"config key {key} is {config[key]}: use a positive number")


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


def stop_if_bad(window: Window, step: int, config: ConfigDict, workdir: str) -> None:
    """Raises UserError where the losses were not finite for `max_bad_steps` updates in a row."""
    if window.bad_steps >= config.max_bad_steps:
        raise UserError(
            f"the losses were not finite for {window.bad_steps} updates up to update {step}; the checkpoints in "
            f"{workdir} are from before: lower optimizer.lr and optimizer.glr, or set precision.compute to float32"
        )


def say(text: str) -> None:
    """Prints a line on the first process."""
    if processes.is_first():
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(command_line.run(main))
