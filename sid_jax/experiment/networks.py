"""The networks of a teacher as functions of their parameters, for `sid`; and what a run begins with."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from sid_jax.errors import UserError
from sid_jax.models.layers.attention import AttentionError
from sid_jax.models.layers.constant import Constant
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.devices.gather import gather_weights
from sid_jax.sid import Networks, Optimizer, TrainState
from sid_jax.size import Resolution
from sid_jax.teachers.teacher import Teacher


class Regularization(NamedTuple):
    """What is random about the networks as they learn; sampling has none of it.

    augment: the probability of each transform of the images that the fake network sees; 0: they are as they are.
    drops_out: whether fake network and generator drop out what their configuration says.
    """

    augment: float = 0.0
    drops_out: bool = False


def networks_of(
    teacher: Teacher,
    resolution: Resolution,
    mesh: jax.sharding.Mesh | None = None,
    regularization: Regularization = Regularization(),  # noqa: B008 (it can't be changed)
) -> Networks:
    """The teacher's denoiser, conditions and encoder of images as functions of their parameters.

    Args:
      teacher: its graphs say what the networks compute in; its parameters are not used.
      resolution: of the images.
      mesh: over whose `fsdp` axis the denoiser's parameters are sharded.
      regularization: of a train step.

    Raises:
      UserError, from the denoiser: the config asks for attention that can't run here.
    """

    @contextlib.contextmanager
    def as_configured() -> Iterator[None]:
        matmul = teacher.denoiser.matmul
        try:
            with jax.default_matmul_precision(matmul) if matmul else contextlib.nullcontext():
                yield
        except AttentionError as error:
            raise UserError(f"config: {error}") from error

    def network(params: Any) -> Any:
        return gather_weights(nnx.merge(teacher.denoiser.graphdef, params), mesh)

    def denoiser(params: Any, x_t: jax.Array, t: jax.Array, cond: Any, dropout_key: jax.Array | None) -> jax.Array:
        with as_configured():
            output: jax.Array = network(params)(x_t, teacher.process.network_time(t), dropout_key=dropout_key, **cond)
        return output

    def discriminator(
        params: Any, x_t: jax.Array, t: jax.Array, cond: Any, dropout_key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        merged, time = network(params), teacher.process.network_time(t)
        with as_configured():
            output, features = merged.with_features(x_t, time, dropout_key=dropout_key, **cond)
            return output, merged.logits(features)

    def encode_condition(params: Any, read: Any) -> Any:
        return teacher.conditions.encode_condition(params, read, resolution)

    def augment(key: jax.Array, images: jax.Array, cond: Any) -> tuple[jax.Array, Any]:
        assert teacher.augment is not None, "a teacher that knows no augmentation is refused before"
        images, told = teacher.augment(key, images, regularization.augment)
        return images, {**cond, **told}

    return Networks(
        denoiser,
        encode_condition,
        discriminator,
        teacher.space.encode_images,
        combine,
        augment=augment if regularization.augment > 0 else None,
        drops_out=regularization.drops_out,
    )


def combine(base: nnx.State, trained: nnx.State | None) -> nnx.State:
    """The denoiser's parameters: what is trained, with what of the base never is (see `sid.Networks`)."""
    if trained is None:
        return base
    return with_constants(trained, nnx.filter_state(base, Constant))


def params_of(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """The parameters of the networks of a teacher's conditions or space."""
    return tuple(part.params for part in parts)


def first_state(
    teacher: Teacher,
    optimizer: Optimizer,
    dtype: jnp.dtype,
    mesh: jax.sharding.Mesh,
    student: nnx.State | None = None,
) -> tuple[TrainState, nnx.State]:
    """The state at step 0, and the frozen base (see `sid.Frozen`), both sharded.

    Args:
      teacher: whose denoiser is read.
      optimizer: of both networks that are trained.
      dtype: that the base's parameters are stored in.
      mesh: where it all is.
      student: parameters that generator and average begin with, float32, in the same shards; None: the teacher's.
    """
    params = teacher.denoiser.load(dtype=None, place=meshes.into_shards(mesh, jnp.float32)).params
    state, params = new_state(params, optimizer, dtype, mesh, student)
    return state, with_constants(params, teacher.denoiser.constants)


def frozen_base(teacher: Teacher, dtype: jnp.dtype, mesh: jax.sharding.Mesh) -> nnx.State:
    """The frozen base alone, to the bit as `first_state` makes it; for a run that goes on."""
    params = teacher.denoiser.load(dtype=None, place=meshes.into_shards(mesh, dtype)).params
    return with_constants(params, teacher.denoiser.constants)


def new_state(
    params: nnx.State,
    optimizer: Optimizer,
    dtype: jnp.dtype,
    mesh: jax.sharding.Mesh,
    student: nnx.State | None = None,
) -> tuple[TrainState, nnx.State]:
    """The state at step 0, and the frozen teacher in the type that it is stored in, both sharded.

    Args:
      params: the teacher's, float32. They become part of the state and can't be used any more: the devices hold at no
        moment more than what is returned.
      optimizer: of both networks that are trained.
      dtype: of the frozen teacher.
      mesh: where it all is.
      student: parameters of another generator to begin with; they too become part of the state.
    """

    def create(params: nnx.State, student: nnx.State | None) -> tuple[TrainState, nnx.State]:
        state = TrainState.create(params, optimizer, student)
        return state, jax.tree.map(lambda p: p.astype(dtype), params)

    shardings = meshes.parameter_shardings(jax.eval_shape(create, params, student), mesh)
    return jax.jit(create, donate_argnums=(0, 1), out_shardings=shardings)(params, student)


def with_constants(params: nnx.State, constants: nnx.State) -> nnx.State:
    """Parameters, and what of a network is none, as one; the same where there is nothing of that kind."""
    return nnx.merge_state(params, constants) if jax.tree.leaves(constants) else params
