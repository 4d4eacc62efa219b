"""The train step of a config as `train` runs it, on devices that need not exist: shapes and shardings for arrays."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from sid_jax.experiment import build
from sid_jax.experiment.condition_cache import cached_text, text_of
from sid_jax.experiment.networks import latent_shape, networks_of
from sid_jax.families.prompts import encode, tokenise
from sid_jax.families.published import abstract_teacher
from sid_jax.families.stable_diffusion import Teacher
from sid_jax.planning import hlo
from sid_jax.planning.cost import cost_of
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.devices.precision import parse_dtype
from sid_jax.sid import Guidance, TrainState, jit_train_step


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
    arguments: tuple[TrainState, dict[str, Any], dict[str, Any]]
    images: float

    @property
    def parameters(self) -> int:
        """Of one UNet."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.teacher.unet.params))

    @property
    def state_bytes(self) -> int:
        """Of the train state and the frozen UNet, over all chips, each array once."""
        state, frozen, _ = self.arguments
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((state, frozen["teacher"])))


def build_program(config: ConfigDict, devices: list[jax.Device]) -> Program:
    """The train step of a config on these devices.

    Raises:
      UserError: what is wrong with the config, or that its mesh or batch does not suit the devices.
    """
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.fsdp, devices)
    meshes.check_batch(config.batch, config.accumulation, mesh)
    teacher, origin = abstract_teacher(config.teacher, variant=config.variant, revision=config.revision)
    teacher = build.configured(teacher, config, mesh)
    sampler, settings = build.sampler_of(config, teacher), build.settings_of(config, teacher)

    shapes = jax.eval_shape(TrainState.create, teacher.unet.params)
    shardings = meshes.parameter_shardings(shapes, mesh)
    text = text_of(teacher, config.resolution)
    empty = tuple(jax.ShapeDtypeStruct(ids.shape, ids.dtype) for ids in tokenise(teacher, [""]))
    tokens = tuple(jax.ShapeDtypeStruct((config.batch, *ids.shape[1:]), ids.dtype) for ids in empty)
    if config.text.precompute:
        empty, tokens = (jax.eval_shape(text.encode, text.params, ids) for ids in (empty, tokens))
        text = cached_text(None)
    frozen = {"teacher": teacher.unet.params, "text": text.params}
    stored = parse_dtype("precision.teacher", config.precision.teacher)
    frozen = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, stored), frozen)
    batch = {
        "fake": placed(tokens, meshes.batch_sharding(mesh)),
        "generator": placed(tokens, meshes.batch_sharding(mesh)),
        "empty": placed(empty, meshes.replicated(mesh)),
    }
    if settings.gan.lambda_d:  # real images as a cache of latents has them
        latents = jax.ShapeDtypeStruct((config.batch, *settings.latent_shape), jnp.float32)
        batch["real"] = placed({"images": latents, "tokens": tokens}, meshes.batch_sharding(mesh))
    step = jit_train_step(
        networks_of(teacher, config.resolution, mesh, text),
        sampler.process,
        settings,
        out_shardings=(shardings, meshes.replicated(mesh)),
    )
    arguments = (placed(shapes, shardings), placed(frozen, meshes.parameter_shardings(frozen, mesh)), batch)
    return Program(origin, teacher, step, arguments, config.batch / config.accumulation / mesh.size)


def placed(tree: Any, shardings: Any) -> Any:
    """Abstract arrays with a sharding each; `shardings` is a tree like theirs, or one for all."""
    if isinstance(shardings, jax.sharding.Sharding):
        shardings = jax.tree.map(lambda _: shardings, tree)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)


def forward_flops(teacher: Teacher, resolution: int) -> int:
    """Operations of the UNet's forward pass for one image, plain attention included, as `arithmetic` counts them."""
    plain = teacher.unet.rebuild(dtype=jnp.bfloat16)
    x_t = jax.ShapeDtypeStruct((1, *latent_shape(teacher, resolution)), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.int32)
    cond = condition(teacher, resolution, 1)

    def forward(params, x_t, t, cond):
        return nnx.merge(plain.graphdef, params)(x_t, t, **cond)

    lowered = jax.jit(forward).lower(plain.params, x_t, t, cond)
    return int(cost_of(hlo.parse(lowered.as_text(dialect="hlo"))).flops)


def condition(teacher: Teacher, resolution: int, batch: int) -> dict[str, Any]:
    """What the UNet is conditioned on, abstract, for a batch."""
    texts = [component.params for component in teacher.text_encoders]
    ids = tuple(jax.ShapeDtypeStruct((batch, *ids.shape[1:]), ids.dtype) for ids in tokenise(teacher, [""]))
    return jax.eval_shape(lambda params, ids: encode(teacher, params, ids, resolution=resolution), texts, ids)


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
