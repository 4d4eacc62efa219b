"""What a config says, in the terms of the rest: teacher, few-step generator, settings. Nothing below takes a config."""

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sid_jax import assets
from sid_jax.config import check_settings
from sid_jax.errors import UserError, user_errors_from
from sid_jax.experiment.networks import Regularization
from sid_jax.families.open import open_configs, open_source
from sid_jax.families.open import open_teacher as teacher_in
from sid_jax.models import Execution
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.devices.precision import parse_dtype, parse_matmul
from sid_jax.sid import (
    DEFAULT_SCALE,
    LAWS,
    Ema,
    FewStep,
    Gan,
    Guidance,
    Loss,
    Optimizer,
    Process,
    Settings,
    Times,
    preset,
)
from sid_jax.teachers.conditions import Conditions
from sid_jax.teachers.teacher import Teacher

_Record = TypeVar("_Record")


def execution_of(config: ConfigDict, mesh: jax.sharding.Mesh | None = None) -> Execution:
    """How the denoiser is computed on the devices of `mesh`; None: on one, of JAX's default backend."""
    with user_errors_from("config"):
        return Execution(
            config.attention.implementation, config.attention.long, remat=config.remat, scan=config.scan, mesh=mesh
        )


def open_teacher(config: ConfigDict, *parts: str, mesh: jax.sharding.Mesh | None = None) -> Teacher:
    """The teacher of a config, whose networks compute in `precision.compute` on `mesh`.

    What is between images and the denoiser, such as an autoencoder, computes in float32. The denoiser's constants are
    read always.

    Args:
      config: the run's.
      *parts: of the teacher, whose parameters are read now, in float32.
      mesh: devices that parameters are sharded over; by default they are all on one.
    """
    check_settings(config)
    if not config.teacher:
        raise UserError("config key teacher is empty: set it to a diffusers folder or a hub id")
    bundle = open_source(config.teacher, variant=config.variant, revision=config.revision)
    place = meshes.into_shards(mesh, jnp.float32) if mesh else None
    teacher = teacher_in(bundle, config.family).load(*parts, place=place)
    teacher = dataclasses.replace(teacher, denoiser=teacher.denoiser.load_constants())
    return configured(teacher, config, mesh)


def describe_teacher(config: ConfigDict, mesh: jax.sharding.Mesh | None = None) -> tuple[Teacher, str]:
    """The same without parameters, and where its configuration is from; published ones come with the package."""
    check_settings(config)
    bundle, origin = open_configs(config.teacher, variant=config.variant, revision=config.revision)
    return configured(teacher_in(bundle, config.family), config, mesh), origin


def configured(teacher: Teacher, config: ConfigDict, mesh: jax.sharding.Mesh | None = None) -> Teacher:
    """The teacher with networks that are computed as the config says, on the devices of `mesh`."""
    compute = parse_dtype("precision.compute", config.precision.compute)
    conditions = teacher.conditions
    changes = None if config.get("dropout") is None else {"dropout": config.dropout}
    denoiser = teacher.denoiser.rebuild(changes, dtype=compute, execution=execution_of(config, mesh))
    return dataclasses.replace(
        teacher,
        denoiser=dataclasses.replace(denoiser, matmul=matmul_of(config)),
        conditions=conditions.with_parts(tuple(part.rebuild(dtype=compute) for part in conditions.parts)),
    )


def matmul_of(config: ConfigDict) -> str | None:
    """How precisely the denoiser multiplies, see `Component.matmul`; of a family that does not say, as JAX does."""
    return parse_matmul("precision.matmul", config.precision.get("matmul", "default"))


def regularization_of(config: ConfigDict, teacher: Teacher) -> Regularization:
    """What is random about the networks that learn; nothing, where the family has no settings for it.

    Raises:
      UserError: images are to be augmented, and the teacher has not learnt what that is.
    """
    augment = config.get("augment", 0.0)
    if augment and teacher.augment is None:
        raise UserError(
            f"config key augment is {augment}, but the teacher {config.teacher} was trained without augmentation: "
            "set it to 0"
        )
    return Regularization(augment, drops_out="dropout" in config and config.dropout != 0)


def asked_of(config: ConfigDict, conditions: Conditions) -> list[Any]:
    """What the run asks for: its prompts, or for a teacher of another kind all that can be asked for."""
    return conditions.asked(assets.resolve(config.get("prompts", "")), file=True)


def guidance_of(config: ConfigDict) -> Guidance:
    """The four scales, those of the named strategy, and over them each one that is set by itself; the published dropout
    of what comes out of that, if none is set."""
    if "guidance" not in config:
        return Guidance()
    with user_errors_from("config"):
        chosen = preset(config.guidance.strategy, config.guidance.scale)
        if config.guidance.strategy != "lsg" and config.guidance.scale != DEFAULT_SCALE:
            raise ValueError(
                f"guidance.scale: {config.guidance.scale} is of strategy lsg, and {config.guidance.strategy!r} has "
                "none: leave it out, or set kappa1 to kappa4"
            )
        names = (field.name for field in dataclasses.fields(Guidance))
        given = {name: config.guidance[name] for name in names if config.guidance[name] is not None}
        chosen = dataclasses.replace(chosen, **given)
        return (
            chosen
            if "prompt_dropout" in given
            else dataclasses.replace(chosen, prompt_dropout=chosen.published_dropout)
        )


def settings_of(config: ConfigDict, shape: tuple[int, ...]) -> Settings:
    """The numbers of the train step, for images or latents of a shape (H, W, C)."""
    with user_errors_from("config"):
        return Settings(
            batch=config.batch,
            shape=shape,
            seed=config.seed,
            accumulation=config.accumulation,
            loss=_fields_of(Loss, config.sid),
            guidance=guidance_of(config),
            gan=Gan(**config.gan),
            optimizer=Optimizer(**config.optimizer),
            ema=Ema(**config.ema),
        )


def few_step_of(config: ConfigDict, process: Process) -> FewStep:
    """The student's sampler."""
    sid = config.sid
    start = process.default_start(sid.num_steps) if sid.t_init is None else sid.t_init
    with user_errors_from("config"):
        return FewStep(process, sid.num_steps, start, sid.noise, sid.first)


def times_of(config: ConfigDict, process: Process) -> Times:
    """At which times of the teacher's process the losses look."""
    with user_errors_from("config"):
        if config.sid.times not in LAWS:
            raise ValueError(f"sid.times: {config.sid.times!r} is not one of {', '.join(LAWS)}")
        times = _fields_of(LAWS[config.sid.times], config.sid)
        times.check(process)
        return times


def _fields_of(record: type[_Record], group: ConfigDict) -> _Record:
    """A dataclass whose fields are keys of the group `sid`, which has others too."""
    names = [field.name for field in dataclasses.fields(record)]  # type: ignore[arg-type]
    for name in names:
        if name not in group:
            raise ValueError(
                f"sid.{name}: teachers of this family have no such setting, and {record.__name__} takes it"
            )
    return record(**{name: group[name] for name in names})
