"""What a layer does with its weights where it uses them: gathers them, or says where their transposes are made."""

import functools
from collections.abc import Callable

import jax
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import Mesh, NamedSharding

from sid_jax.runtime.mesh import parameter_spec, replicated


def gather_weights(network: nnx.Module, mesh: Mesh | None) -> nnx.Module:
    """The network, whose linear and convolution layers now gather their weights over `fsdp`, each as it is used.

    They are gathered in the type that is computed in, and the gradients of each layer are summed and split in it too.
    Without this XLA is free to leave a kernel split and to split the activations after it, which costs far more
    transfers than the kernel has bytes.

    On a mesh without an `fsdp` axis there is nothing to gather, and on GPUs the convolutions' kernels are held to the
    layout in which they are stored (`_in_rows`) instead. With None, and elsewhere, nothing changes.
    """
    if mesh is None:
        return network
    if mesh.shape["fsdp"] > 1:
        prepare = _gathering(mesh)
    elif mesh.devices.flat[0].platform in ("gpu", "cuda", "rocm"):
        prepare = _in_rows
    else:
        return network
    for _, layer in nnx.iter_modules(network):
        if hasattr(layer, "promote_dtype"):
            layer.promote_dtype = _promotion(prepare)
    return network


@functools.cache
def _promotion(prepare: Callable[[jax.Array], jax.Array]) -> Callable:
    # One function for each mesh, so that graphs of networks that hold it compare equal.
    def promote(arrays: tuple, *, dtype: jax.typing.DTypeLike | None) -> tuple:
        x, *weights = promote_dtype(arrays, dtype=dtype)
        return x, *(None if weight is None else prepare(weight) for weight in weights)

    return promote


@functools.cache
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


def _in_rows(weight: jax.Array) -> jax.Array:
    """The weight, and its gradient, with its axes in memory as they are written.

    cuDNN wants kernels with the outputs first. Left to itself, XLA transposes the float32 parameters before a loop over
    the parts of a batch, and carries them and the sum of their gradients through it in that form.
    """
    return with_layout_constraint(weight, Layout(tuple(range(weight.ndim)))) if weight.ndim == 4 else weight
