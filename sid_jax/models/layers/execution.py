"""How a network is computed, and on what: nothing here changes what it computes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

_KERNELS = ("pallas_call", "dot_product_attention_fwd_wrapper")


def _is_kernel(primitive: Any, *_, **__) -> bool:
    """Whether it is an attention kernel, whose results are no larger than a block's inputs, and much work to have."""
    return primitive.name in _KERNELS


def _is_product(primitive: Any, *_, **parameters) -> bool:
    """Whether it is a linear layer, a convolution or an attention kernel, of all that there is to compute again.

    The products within plain attention have batch dimensions: as large as the logits, they are not worth keeping.
    """
    if primitive.name == "dot_general":
        return not any(parameters["dimension_numbers"][1])
    return primitive.name == "conv_general_dilated" or _is_kernel(primitive)


REMAT = {"none": None, "dots": _is_product, "full": _is_kernel}
"""What the forward pass keeps of each block for the backward pass, by name, beside the block's inputs."""
ATTENTION = ("auto", "xla", "chunked", "cudnn", "splash")
_PLATFORMS = {"cudnn": "gpu", "splash": "tpu"}


@dataclasses.dataclass(frozen=True)
class Execution:
    """Options of a network's constructor that its graph keeps.

    Attributes:
      attention: which implementation computes attention over `long_attention` or more positions. "auto" is the fastest
        one that the platform, the type and the shape allow; "xla" is plain, with all logits in memory; "chunked" is
        plain JAX that holds a chunk of them at a time; "cudnn" and "splash" are the flash kernels of GPUs and TPUs.
        Shorter sequences, and the text's 77 tokens, whose logits are few, are plain always.
      long_attention: positions.
      remat: what is kept of a residual or transformer block for the backward pass, which computes the rest again: with
        "none" all of it, with "dots" the results of linear layers, convolutions and attention kernels, with "full"
        nothing but its inputs and the results of attention kernels; within a loop over blocks its inputs alone.
      scan: run equal transformer blocks, of which SDXL has ten in a row, as one loop: several times less to compile, at
        the price of a copy of their weights in the type that is computed in.
      platform: "cpu", "gpu" or "tpu": that of the devices that a program is compiled *for*, which need not be here;
        None: that of the mesh, and without one that of JAX's default backend.
      mesh: the devices, over all of whose axes a batch is split; None: one device. XLA splits what it compiles itself,
        and has to be told of kernels.

    Raises:
      ValueError: an unknown name, or an implementation that the platform does not have.
    """

    attention: str = "auto"
    long_attention: int = 1024
    remat: str = "none"
    scan: bool = True
    platform: str | None = None
    mesh: Mesh | None = None

    def __post_init__(self):
        platform = self.platform or (self.mesh.devices.flat[0].platform if self.mesh else jax.default_backend())
        object.__setattr__(self, "platform", platform_of(platform))
        if self.attention not in ATTENTION:
            raise ValueError(f"attention.implementation: {self.attention!r} is not one of {', '.join(ATTENTION)}")
        if _PLATFORMS.get(self.attention, self.platform) != self.platform:
            wanted = _PLATFORMS[self.attention]
            raise ValueError(f"attention.implementation: {self.attention!r} is for {wanted}s, not for {self.platform}s")
        if self.remat not in REMAT:
            raise ValueError(f"remat: {self.remat!r} is not one of {', '.join(REMAT)}")
        if self.long_attention < 1:
            raise ValueError(f"attention.long: {self.long_attention} is not a positive number of positions")

    def by_device(self, function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
        """`function(*arrays)`, computed by each device on its own part of the batch, the first axis of all arrays.

        Where the devices can't have equal parts, each computes all of it.
        """
        if self.mesh is None or self.mesh.size == 1:
            return function(*arrays)
        even = len(arrays[0]) % self.mesh.size == 0
        spec = PartitionSpec(self.mesh.axis_names) if even else PartitionSpec()
        return jax.shard_map(function, mesh=self.mesh, in_specs=spec, out_specs=spec, check_vma=False)(*arrays)


def platform_of(device: str) -> str:
    """A platform's name as the project has it, "cpu", "gpu" or "tpu": to JAX GPUs have names by their makers too."""
    return {"cuda": "gpu", "rocm": "gpu"}.get(device, device)


def settle(execution: Execution | None, x: jax.Array) -> jax.Array:
    """`x` itself; on TPUs a place where it has the form that the program says.

    For convolutions of few samples, XLA for TPUs moves parts of each row into the batch, and would rather not move them
    back: what follows is computed in that form too, and group norms pay for it (docs/scale.md has figures).
    """
    return jax.lax.optimization_barrier(x) if execution is not None and execution.platform == "tpu" else x


def run(
    execution: Execution | None,
    function: Callable[..., jax.Array],
    module: nnx.Module,
    *arrays: jax.Array,
    in_loop: bool = False,
) -> jax.Array:
    """`function(module, *arrays)`, of which the backward pass finds what `execution.remat` says and computes the rest.

    Args:
      in_loop: whether this is the body of a loop, whose forward and backward passes XLA can't merge as it is.
    """
    if execution is None or execution.remat == "none":
        return function(module, *arrays)
    graph, params = nnx.split(module)

    def pure(params: nnx.State, *arrays: jax.Array) -> jax.Array:
        return function(nnx.merge(graph, params), *arrays)

    return jax.checkpoint(pure, policy=REMAT[execution.remat], prevent_cse=not in_loop)(params, *arrays)
