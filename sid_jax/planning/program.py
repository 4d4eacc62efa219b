"""The train step of a config as `train` runs it, on devices that need not exist: shapes and shardings for arrays."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from sid_jax.experiment import build
from sid_jax.experiment.condition_cache import precomputes
from sid_jax.experiment.networks import networks_of, params_of, with_constants
from sid_jax.planning import hlo
from sid_jax.planning.cost import cost_of
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.devices.precision import parse_dtype
from sid_jax.sid import Batch, Frozen, Guidance, Real, TrainState, jit_train_step
from sid_jax.size import Resolution
from sid_jax.teachers.conditions import CachedConditions
from sid_jax.teachers.teacher import Teacher


@dataclasses.dataclass(frozen=True)
class Program:
    """A train step that is ready to be lowered.

    origin: where the teacher's configuration is from.
    teacher: abstract.
    step, arguments: the jitted function, and its abstract arguments with their shardings.
    images: that one chip processes at a time.
    """

    origin: str
    teacher: Teacher
    step: Any
    arguments: tuple[TrainState, Frozen, Batch]
    images: float

    @property
    def parameters(self) -> int:
        """Of one denoiser."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.teacher.denoiser.params))

    @property
    def state_bytes(self) -> int:
        """Of the train state and the frozen denoiser, over all chips, each array once."""
        state, frozen, _ = self.arguments
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((state, frozen.base)))


def build_program(config: ConfigDict, devices: list[jax.Device]) -> Program:
    """The train step of a config on these devices.

    Raises:
      UserError: what is wrong with the config, or that its mesh or batch does not suit the devices.
    """
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.fsdp, devices)
    meshes.check_batch(config.batch, config.accumulation, mesh)
    teacher, origin = build.describe_teacher(config, mesh)
    settings = build.settings_of(config, teacher.space.shape(config.resolution))

    create = functools.partial(TrainState.create, optimizer=settings.optimizer)
    shapes = jax.eval_shape(create, teacher.denoiser.params)
    shardings = meshes.parameter_shardings(shapes, mesh)
    empty = shapes_of(teacher.conditions.empty())
    if precomputes(config):
        encode = functools.partial(teacher.conditions.encode_condition, resolution=config.resolution)
        empty = jax.eval_shape(encode, params_of(teacher.conditions.parts), empty)
        teacher = dataclasses.replace(teacher, conditions=CachedConditions(teacher.conditions, lambda asked: empty))
    read = jax.tree.map(lambda x: jax.ShapeDtypeStruct((config.batch, *x.shape[1:]), x.dtype), empty)
    stored = parse_dtype("precision.teacher", config.precision.teacher)
    parameters = (teacher.denoiser.params, params_of(teacher.conditions.parts))
    params, of_conditions = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, stored), parameters)
    frozen = Frozen(with_constants(params, teacher.denoiser.constants), of_conditions)
    real = None
    if settings.gan.used:  # real images as a cache of latents has them
        latents = jax.ShapeDtypeStruct((config.batch, *settings.shape), jnp.float32)
        real = meshes.abstract(Real(latents, read), meshes.batch_sharding(mesh))
    read = meshes.abstract(read, meshes.batch_sharding(mesh))
    batch = Batch(read, read, meshes.abstract(empty, meshes.replicated(mesh)), real)
    step = jit_train_step(
        networks_of(teacher, config.resolution, mesh, build.regularization_of(config, teacher)),
        build.few_step_of(config, teacher.process),
        build.times_of(config, teacher.process),
        settings,
        out_shardings=(shardings, meshes.replicated(mesh)),
    )
    frozen = meshes.abstract(frozen, meshes.parameter_shardings(frozen, mesh))
    arguments = (meshes.abstract(shapes, shardings), frozen, batch)
    return Program(origin, teacher, step, arguments, config.batch / config.accumulation / mesh.size)


def shapes_of(tree: Any) -> Any:
    """The arrays of a tree without their values."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def forward_flops(teacher: Teacher, resolution: Resolution) -> int:
    """Operations of the denoiser's forward pass for one image, plain attention included; see `arithmetic`."""
    plain = teacher.denoiser.rebuild(dtype=jnp.bfloat16)
    x_t = jax.ShapeDtypeStruct((1, *teacher.space.shape(resolution)), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.int32)
    cond = condition(teacher, resolution, 1)

    def forward(params: Any, x_t: jax.Array, t: jax.Array, cond: Any) -> jax.Array:
        return nnx.merge(plain.graphdef, params)(x_t, teacher.process.network_time(t), **cond)

    lowered = jax.jit(forward).lower(plain.whole, x_t, t, cond)
    return int(cost_of(hlo.parse(lowered.as_text(dialect="hlo"))).flops)


def condition(teacher: Teacher, resolution: Resolution, batch: int) -> dict[str, Any]:
    """What the denoiser is conditioned on, abstract, for a batch."""
    conditions = teacher.conditions
    read = jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype), conditions.empty())
    encode = functools.partial(conditions.encode_condition, resolution=resolution)
    return jax.eval_shape(encode, params_of(conditions.parts), read)


def floor_forwards(guidance: Guidance, in_fake: float = 1, in_generator: float = 1) -> float:
    """UNet forward passes for an image that an iteration can't do without: A + B of section 8 of the method.

    A = n + 3 g1; B = n + 2 + 2 g23 + 2 g4. g is 2 where guidance needs both predictions and 1 elsewhere; a backward
    pass costs two forward passes, or one where only the inputs' gradient is wanted.

    Args:
      guidance: the four scales.
      in_fake, in_generator: n in A and in B; the mean over 1..K is (K + 1) / 2.
    """
    g1, g23, g4 = (
        1 if all(scale == 1 for scale in scales) or all(scale == 0 for scale in scales) else 2
        for scales in ((guidance.kappa1,), (guidance.kappa2, guidance.kappa3), (guidance.kappa4,))
    )
    return (in_fake + 3 * g1) + (in_generator + 2 + 2 * g23 + 2 * g4)
