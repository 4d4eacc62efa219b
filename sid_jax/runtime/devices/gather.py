"""What a layer does with its weights where it uses them: it gathers them, or casts and transposes them no earlier."""

import functools
from collections.abc import Callable

import jax
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import Mesh, NamedSharding

from sid_jax.models.layers.execution import platform_of
from sid_jax.runtime.devices.mesh import parameter_spec, replicated


def gather_weights(network: nnx.Module, mesh: Mesh | None) -> nnx.Module:
    """The network, whose linear and convolution layers now gather their weights over `fsdp`, each as it is used.

    They are gathered in the type that is computed in, and the gradients of each layer are summed and split in it too.
    Without this XLA is free to leave a kernel split and to split the activations after it, which costs far more
    transfers than the kernel has bytes.

    On GPUs that hold all weights there is nothing to gather, but copies of them to avoid (`_late`). With None, and
    elsewhere, nothing changes.
    """
    if mesh is None:
        return network
    if mesh.shape["fsdp"] > 1:
        promote = _gathered(mesh)
    elif platform_of(mesh.devices.flat[0].platform) == "gpu":
        promote = _late
    else:
        return network
    for _, layer in nnx.iter_modules(network):
        if hasattr(layer, "promote_dtype"):
            layer.promote_dtype = promote
    return network


@functools.cache
def _gathered(mesh: Mesh) -> Callable:
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


def _late(arrays: tuple, *, dtype: jax.typing.DTypeLike | None) -> tuple:
    """Weights in the type that is computed in, cast and transposed when the layer's input is there.

    cuDNN wants the kernels of convolutions with the outputs first. Left to itself, XLA transposes all of them, of all
    networks, long before; and with a loop over the parts of a batch it carries float32 parameters and the sum of their
    gradients through it in that form. So the kernel and its gradient are held to the layout in which they are stored.
    """
    x, *weights = promote_dtype(_together(arrays), dtype=dtype)
    return x, *(_in_rows(weight) if weight is not None and weight.ndim == 4 else weight for weight in weights)


@jax.custom_vjp
def _together(arrays: tuple) -> tuple:
    """The arrays, none of which is used before all are there; their gradients need not wait for each other."""
    return jax.lax.optimization_barrier(arrays)


_together.defvjp(lambda arrays: (_together(arrays), None), lambda _, gradients: (gradients,))


def _in_rows(weight: jax.Array) -> jax.Array:
    return with_layout_constraint(weight, Layout(tuple(range(weight.ndim))))
