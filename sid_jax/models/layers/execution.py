"""How a network is computed, and on what: nothing here changes what it computes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.experimental.xla_metadata import set_xla_metadata
from jax.sharding import AxisType, Mesh, PartitionSpec

_KERNELS = ("pallas_call", "dot_product_attention_fwd_wrapper")


def _is_kernel(primitive: Any, *_: Any, **__: Any) -> bool:
    """Whether an operation is an attention kernel: its results are no larger than a block's inputs, and costly."""
    return primitive.name in _KERNELS


def _is_product(primitive: Any, *_: Any, **parameters: Any) -> bool:
    """Whether an operation is a linear layer, a convolution or an attention kernel.

    The products within plain attention, which are told by their batch dimensions, are none: they are as large as the
    logits, and not worth keeping.
    """
    if primitive.name == "dot_general":
        return not any(parameters["dimension_numbers"][1])
    return primitive.name == "conv_general_dilated" or _is_kernel(primitive)


REMAT = {"none": None, "dots": _is_product, "full": _is_kernel}
"""By name, the operations whose results the forward pass keeps for the backward pass, beside each block's inputs."""
ATTENTION = ("auto", "xla", "chunked", "blocked", "cudnn", "splash")
_PLATFORMS = {"cudnn": "gpu", "splash": "tpu"}


@dataclasses.dataclass(frozen=True)
class Execution:
    """Options of a network's constructor that its graph keeps.

    Attributes:
      attention: which implementation computes attention over `long_attention` or more positions. "auto" is the fastest
        one that the platform, the type and the shape allow; "xla" is plain, with all logits in memory; "chunked" is
        plain JAX that holds a chunk of the logits at a time, and "blocked" one that fits a CPU's cache; "cudnn" and
        "splash" are the flash kernels of GPUs and TPUs. Attention over fewer positions, such as the text's 77 tokens,
        has few logits, and is plain. On CPUs "auto" does not ask for a length: it is "blocked" where there are more
        than a few logits.
      long_attention: positions.
      remat: what the forward pass keeps of a residual or transformer block; the backward pass computes the rest again.
        "none" keeps everything, "dots" the results of linear layers, convolutions and attention kernels, "full" the
        block's inputs and the results of attention kernels. In a loop over blocks "full" keeps the inputs alone.
      scan: run equal transformer blocks, of which SDXL has ten in a row, as one loop. The program is several times
        smaller to compile, and holds a copy of the blocks' weights in the type of the computation.
      platform: "cpu", "gpu" or "tpu", of the devices that a program is compiled *for*, which need not be here. Given
        as None it becomes the mesh's platform, or without a mesh that of JAX's default backend.
      mesh: the devices; a batch is split over all axes. None: one device. XLA splits what it compiles itself, but has
        to be told how to split kernels.

    Raises:
      ValueError: an unknown name, or an implementation that the platform does not have.
    """

    attention: str = "auto"
    long_attention: int = 1024
    remat: str = "none"
    scan: bool = True
    platform: str | None = None
    mesh: Mesh | None = None

    def __post_init__(self) -> None:
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
        """`function(*arrays)`, which each device computes on its own part of the batch.

        Where the batch can't be split evenly, each device computes all of it.

        Args:
          function: of the arrays of one device.
          *arrays: `[B, ...]`.

        Returns:
          `[B, ...]`.
        """
        has_its_part = AxisType.Manual in jax.sharding.get_abstract_mesh().axis_types  # inside of another shard_map
        if self.mesh is None or self.mesh.size == 1 or has_its_part:
            return function(*arrays)
        even = len(arrays[0]) % self.mesh.size == 0
        spec = PartitionSpec(self.mesh.axis_names) if even else PartitionSpec()
        return jax.shard_map(function, mesh=self.mesh, in_specs=spec, out_specs=spec, check_vma=False)(*arrays)


def platform_of(device: str) -> str:
    """A platform's name here, "cpu", "gpu" or "tpu". JAX also has names of GPUs by their makers, such as "cuda"."""
    return {"cuda": "gpu", "rocm": "gpu"}.get(device, device)


def is_on(execution: Execution | None, platform: str) -> bool:
    """Whether a network is computed on a platform: "cpu", "gpu" or "tpu". Without an execution it is on none."""
    return execution is not None and execution.platform == platform


def materialised(execution: Execution | None, x: jax.Array) -> jax.Array:
    """`x` itself, `[B, H, W, C]`, an output that much follows from: XLA has to compute it once, and in this layout.

    On CPUs it would compute it again in what follows (see `computed_once`). On TPUs it moves parts of each row into the
    batch for convolutions of few samples, and would compute what follows in that layout too, which makes group norms
    slow and large (docs/scale.md has figures). On GPUs nothing is asked of it.
    """
    if is_on(execution, "cpu"):
        return computed_once(x)
    return jax.lax.optimization_barrier(x) if is_on(execution, "tpu") else x


def computed_once(x: jax.Array) -> jax.Array:
    """`x` itself, which XLA for CPUs has to compute once; its gradient too.

    Left alone, it computes a chain of elementwise operations again in everything that reads the end of the chain. The
    gradient along the residual path is such a chain, through all blocks, and each block's layers read it. XLA for CPUs
    drops barriers before it chooses what to fuse, but not a call that it may not inline.
    """
    with set_xla_metadata(inlineable="false"):
        return _barrier(x)


@jax.jit
def _barrier(x: jax.Array) -> jax.Array:
    return jax.lax.optimization_barrier(x)  # if it did nothing, JAX would leave the call out of a gradient


def run(
    execution: Execution | None,
    function: Callable[..., jax.Array],
    module: nnx.Module,
    *arrays: jax.Array | None,
    in_loop: bool = False,
) -> jax.Array:
    """`function(module, *arrays)`; the backward pass computes again what `execution.remat` does not keep.

    Args:
      execution: None: everything is kept.
      function: pure.
      module: whose parameters are among the inputs that are kept.
      *arrays: the other inputs.
      in_loop: whether the call is the body of a loop. XLA can't merge a loop's forward and backward passes, so it need
        not be kept from doing so.

    Returns:
      What `function` returns.
    """
    if execution is None or execution.remat == "none":
        return function(module, *arrays)
    graph, params = nnx.split(module)

    def pure(params: nnx.State, *arrays: jax.Array | None) -> jax.Array:
        return function(nnx.merge(graph, params), *arrays)

    return jax.checkpoint(pure, policy=REMAT[execution.remat], prevent_cse=not in_loop)(params, *arrays)
