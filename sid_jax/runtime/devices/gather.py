"""What a layer does with its weights when it uses them: it gathers them, or it casts and transposes them just then."""

import functools
from collections.abc import Callable

import jax
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import Mesh, NamedSharding

from sid_jax.runtime.devices.mesh import parameter_spec, platform, replicated


def gather_weights(network: nnx.Module, mesh: Mesh | None) -> nnx.Module:
    """Makes each linear and convolution layer of a network gather its weights over `fsdp` when the layer is used.

    A layer gathers its weights in the type that it computes in, and its gradients are summed and split in that type
    too. Without this XLA is free to leave a kernel split and to split the activations after it, which transfers far
    more bytes than the kernel has.

    On GPUs that hold all weights there is nothing to gather; there each layer casts its weights late (`cast_late`), to
    avoid copies of all of them. On other devices that hold all weights nothing changes.

    Args:
      network: is changed.
      mesh: where the parameters are; None: nothing changes.

    Returns:
      the same network.
    """
    if mesh is None:
        return network
    if mesh.shape["fsdp"] > 1:
        promote = _gathered(mesh)
    elif platform(mesh) == "gpu":
        promote = cast_late
    else:
        return network
    for _, layer in nnx.iter_modules(network):
        # Of a table of embeddings only the rows that are looked up are needed, and it has no input to promote them to.
        if hasattr(layer, "promote_dtype") and not isinstance(layer, nnx.Embed):
            layer.promote_dtype = promote
    return network


@functools.cache
def _gathered(mesh: Mesh) -> Callable[..., tuple]:
    # Cached, so that two networks on one mesh hold the same function: only then their graphs compare equal.
    gather = _gathering(mesh)

    def promote(arrays: tuple, *, dtype: jax.typing.DTypeLike | None) -> tuple:
        x, *weights = promote_dtype(arrays, dtype=dtype)
        return x, *(None if weight is None else gather(weight) for weight in weights)

    return promote


def _gathering(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """A function of a split weight that returns the whole weight on every device.

    A reduce-scatter splits the weight's gradient as the weight was.
    """

    def whole(weight: jax.Array) -> jax.Array:
        # Without the barrier XLA gathers first and casts later, and transfers and reads twice the bytes.
        return jax.lax.with_sharding_constraint(jax.lax.optimization_barrier(weight), replicated(mesh))

    def backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
        own = NamedSharding(mesh, parameter_spec(gradient.shape, mesh.shape["fsdp"]))
        return (jax.lax.with_sharding_constraint(gradient, own),)

    gather = jax.custom_vjp(whole)
    gather.defvjp(lambda weight: (whole(weight), None), backward)
    return gather


def cast_late(arrays: tuple, *, dtype: jax.typing.DTypeLike | None) -> tuple:
    """A layer's input and weights in the type that it computes in; the weights are cast when the input is there.

    cuDNN wants the kernels of convolutions with the outputs first. Left to itself, XLA transposes all kernels of all
    networks long before they are used; and where a loop goes over the micro-batches, XLA carries the float32 parameters
    and the sum of their gradients through the loop in that form. So a kernel and its gradient are held to the layout in
    which they are stored.

    Args:
      arrays: the input, then the weights; a weight that the layer has not is None.
      dtype: what the layer computes in; None: what the arrays' types promote to.
    """
    x, *weights = promote_dtype(after_all_inputs(arrays), dtype=dtype)
    return x, *(_in_rows(weight) if weight is not None and weight.ndim == 4 else weight for weight in weights)


@jax.custom_vjp
def after_all_inputs(arrays: tuple) -> tuple:
    """The same arrays, none of which is used before all are there. Their gradients do not wait for each other."""
    return jax.lax.optimization_barrier(arrays)


after_all_inputs.defvjp(lambda arrays: (after_all_inputs(arrays), None), lambda _, gradients: (gradients,))


def _in_rows(weight: jax.Array) -> jax.Array:
    """The weight, held to the layout in which it is stored: the last dimension's elements are neighbours."""
    return with_layout_constraint(weight, Layout(tuple(range(weight.ndim))))
