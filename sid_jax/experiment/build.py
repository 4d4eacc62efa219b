"""What a config says, in the terms of the method: the teacher, the forward process, the settings, the student."""

import contextlib
import dataclasses
from collections.abc import Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sid_jax import assets
from sid_jax.errors import UserError
from sid_jax.experiment.networks import latent_shape
from sid_jax.families.stable_diffusion import PARTS, Teacher, load_teacher
from sid_jax.models import Execution
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.devices.precision import parse_dtype
from sid_jax.sid import VP, FewStep, Gan, Guidance, Settings, TrainState, preset


@contextlib.contextmanager
def naming(source: str) -> Iterator[None]:
    """Turns a ValueError about a setting into a UserError that names where the setting is from."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error


def execution_of(config: ConfigDict, mesh: jax.sharding.Mesh | None = None) -> Execution:
    """How the UNet is computed on the devices of `mesh`; None: on one, of JAX's default backend."""
    with naming("config"):
        return Execution(
            config.attention.implementation, config.attention.long, remat=config.remat, scan=config.scan, mesh=mesh
        )


def open_teacher(
    config: ConfigDict,
    parts: Collection[str] = PARTS,
    fetch: Collection[str] = (),
    mesh: jax.sharding.Mesh | None = None,
) -> Teacher:
    """The teacher of a config: parameters in float32, networks that compute in `precision.compute` on `mesh`.

    The autoencoder, which only makes pictures, computes in float32.

    Args:
      config: the run's.
      parts: networks whose parameters are read now.
      fetch: further networks whose files will be read.
      mesh: devices that parameters are sharded over; by default they are all on one.
    """
    if not config.teacher:
        raise UserError("config key teacher is empty: set it to a diffusers folder or a hub id")
    source = assets.resolve(config.teacher)
    place = meshes.into_shards(mesh, jnp.float32) if mesh else None
    names = {"variant": config.variant, "revision": config.revision}
    return configured(load_teacher(source, **names, parts=parts, fetch=fetch, place=place), config, mesh)


def configured(teacher: Teacher, config: ConfigDict, mesh: jax.sharding.Mesh | None = None) -> Teacher:
    """The teacher with networks that are computed as the config says, on the devices of `mesh`."""
    compute = parse_dtype("precision.compute", config.precision.compute)
    return dataclasses.replace(
        teacher,
        unet=teacher.unet.rebuild(dtype=compute, execution=execution_of(config, mesh)),
        text_encoders=tuple(component.rebuild(dtype=compute) for component in teacher.text_encoders),
    )


def new_state(params: Any, dtype: jnp.dtype, mesh: jax.sharding.Mesh) -> tuple[TrainState, Any]:
    """The state at step 0, and the frozen teacher in the type that it is stored in, both sharded.

    Args:
      params: the teacher's, float32. They become part of the state and can't be used any more: the devices hold at no
        moment more than what is returned.
      dtype: of the frozen teacher.
      mesh: where it all is.
    """

    def create(params):
        return TrainState.create(params), jax.tree.map(lambda p: p.astype(dtype), params)

    shardings = meshes.parameter_shardings(jax.eval_shape(create, params), mesh)
    return jax.jit(create, donate_argnums=0, out_shardings=shardings)(params)


def guidance_of(config: ConfigDict) -> Guidance:
    """The four scales: those of the named strategy, and over them each one that is set by itself."""
    chosen = preset(config.guidance.strategy, config.guidance.scale)
    names = (field.name for field in dataclasses.fields(Guidance))
    given = {name: config.guidance[name] for name in names if config.guidance[name] is not None}
    return dataclasses.replace(chosen, **given)


def settings_of(config: ConfigDict, teacher: Teacher) -> Settings:
    """The numbers of the train step."""
    with naming("config"):
        return Settings(
            seed=config.seed,
            batch=config.batch,
            accumulation=config.accumulation,
            latent_shape=latent_shape(teacher, config.resolution),
            num_steps=config.sid.num_steps,
            t_init=config.sid.t_init,
            noise=config.sid.noise,
            alpha=config.sid.alpha,
            weighting=config.sid.weighting,
            loss_scale=config.sid.loss_scale,
            guidance=guidance_of(config),
            gan=Gan(**config.gan),
            lr=config.optimizer.lr,
            glr=config.optimizer.glr,
            beta2=config.optimizer.beta2,
            eps=config.optimizer.eps,
            clip_value=config.optimizer.clip_value,
            half_life=config.ema.half_life,
            ramp_up=config.ema.ramp_up,
        )


def sampler_of(config: ConfigDict, teacher: Teacher) -> FewStep:
    """The student's sampler; its `process` is the teacher's forward process."""
    with naming("config"):
        process = VP.from_scheduler(teacher.scheduler_config, config.sid.t_min, config.sid.t_max)
        return FewStep(process, config.sid.num_steps, config.sid.t_init, config.sid.noise)
