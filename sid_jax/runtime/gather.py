"""Sharded weights, whole where they are used: what a layer does with its kernel on a mesh with an `fsdp` axis."""

import functools
from collections.abc import Callable

import jax
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from jax.sharding import Mesh, NamedSharding

from sid_jax.runtime.mesh import parameter_spec, replicated


def gather_weights(network: nnx.Module, mesh: Mesh | None) -> nnx.Module:
    """The network, whose linear and convolution layers now gather their weights over `fsdp`, each as it is used.

    They are gathered in the type that is computed in, and the gradients of each layer are summed and split in it too.
    Without this XLA is free to leave a kernel split and to split the activations after it, which costs far more
    transfers than the kernel has bytes. On a mesh without an `fsdp` axis, or None, nothing changes.
    """
    if mesh is None or mesh.shape["fsdp"] == 1:
        return network
    for _, layer in nnx.iter_modules(network):
        if hasattr(layer, "promote_dtype"):
            layer.promote_dtype = _promotion(mesh)
    return network


@functools.cache
def _promotion(mesh: Mesh) -> Callable:
    # One function for each mesh, so that graphs of networks that hold it compare equal.
    gather = _gathering(mesh)

    def promote(arrays: tuple, *, dtype: jax.typing.DTypeLike | None) -> tuple:
        x, *weights = promote_dtype(arrays, dtype=dtype)
        return x, *(None if weight is None else gather(weight) for weight in weights)

    return promote


def _gathering(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """weight -> the whole of it on every device; its gradient is sharded as the weight is, by a reduce-scatter."""

    def whole(weight: jax.Array) -> jax.Array:
        # Without the barrier XLA gathers first and casts later: twice the bytes to transfer, and twice to read.
        return jax.lax.with_sharding_constraint(jax.lax.optimization_barrier(weight), replicated(mesh))

    def backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
        own = NamedSharding(mesh, parameter_spec(gradient.shape, mesh.shape["fsdp"]))
        return (jax.lax.with_sharding_constraint(gradient, own),)

    gather = jax.custom_vjp(whole)
    gather.defvjp(lambda weight: (whole(weight), None), backward)
    return gather
