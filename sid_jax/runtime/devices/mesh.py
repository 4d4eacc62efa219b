"""Devices: one mesh with axes `data` and `fsdp`, and where on it batches and parameters live.

A batch is split over both axes. A parameter is split over `fsdp` along its largest dimension that divides evenly, and
is replicated over `data`; XLA inserts the collectives. On one device all of this is the identity.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sid_jax.errors import UserError
from sid_jax.models.layers.execution import platform_of

AXES = ("data", "fsdp")
SMALL = 2**16  # elements; sharding less costs more in latency than it saves in memory


def make_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of `data` x `fsdp` devices; one of the two may be -1: all that the other leaves.

    Devices of one slice (TPUs that are linked directly, or GPUs in one node) are neighbours in the mesh. Several slices
    divide the `data` axis, over which only gradients travel, as far as that axis can be divided.

    Args:
      data: the config's `mesh.data`.
      fsdp: the config's `mesh.fsdp`.
      devices: those of the mesh; None: all of them.

    Raises:
      UserError: the shape does not use exactly the devices there are.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    sizes = {"data": data, "fsdp": fsdp}
    for name, size in sizes.items():
        if size < 1 and size != -1:
            raise UserError(f"mesh.{name} is {size}: use a positive number, or -1 for all devices that are left")
    if data == -1 and fsdp == -1:
        raise UserError("mesh.data and mesh.fsdp are both -1: only one of them can be all devices that are left")
    free = [name for name, size in sizes.items() if size == -1]
    if free:
        other = max(sizes.values())
        sizes[free[0]] = count // other
    if sizes["data"] * sizes["fsdp"] != count:
        raise UserError(
            f"mesh.data {data} x mesh.fsdp {fsdp} does not fit {_devices(count)}: "
            f"their product must be {count}, or one of them -1 and the other a divisor of {count}"
        )
    types = (AxisType.Auto,) * 2
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=types, devices=devices)
    over_data = math.gcd(sizes["data"], slices)
    across = (over_data, slices // over_data)
    within = tuple(size // parts for size, parts in zip(sizes.values(), across, strict=True))
    # Axes may be split: the two dimensions of a slice that is a flat torus seldom are those of the mesh.
    arranged = mesh_utils.create_hybrid_device_mesh(within, across, devices, allow_split_physical_axes=True)
    return Mesh(arranged, AXES, axis_types=types)


def check_batch(batch: int, accumulation: int, mesh: Mesh) -> None:
    """Checks that every device can have an equal share of each of the `accumulation` micro-batches of a batch.

    Args:
      batch: images of an update.
      accumulation: micro-batches of an update.
      mesh: the devices.

    Raises:
      UserError: a device can't have one.
    """
    if batch < 1 or accumulation < 1:
        raise UserError(f"batch is {batch} and accumulation {accumulation}: use positive numbers")
    unit = mesh.size * accumulation
    if batch % unit:
        parts = f"{_devices(mesh.size)} x accumulation {accumulation}"
        raise UserError(f"batch {batch} can't be split over {parts}: use a multiple of {unit}")


def platform(mesh: Mesh) -> str:
    """That of its devices: "cpu", "gpu" or "tpu"."""
    return platform_of(mesh.devices.flat[0].platform)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays that every device has whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch `[B, ...]`: B is split over both axes."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def parameter_shardings(parameters: Any, mesh: Mesh) -> Any:
    """The shardings of parameters, of optimizer moments or of averages: each leaf by its own shape.

    Args:
      parameters: a pytree of arrays or ShapeDtypeStructs.
      mesh: the devices.

    Returns:
      the same tree with a NamedSharding at each leaf.
    """
    return jax.tree.map(lambda leaf: parameter_sharding(leaf.shape, mesh), parameters)


def parameter_sharding(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """The sharding of a parameter of a shape."""
    return NamedSharding(mesh, parameter_spec(shape, mesh.shape["fsdp"]))


def parameter_spec(shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """How a parameter of a shape is split: over `fsdp` along the largest dimension that it divides.

    Of equal dimensions the last one is split. A parameter that has no such dimension, or fewer than `SMALL` elements,
    is replicated.

    Args:
      shape: the parameter's.
      fsdp: devices along that axis of the mesh.
    """
    divisible = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    if fsdp == 1 or not divisible or math.prod(shape) < SMALL:
        return PartitionSpec()
    largest = max(divisible, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*("fsdp" if axis == largest else None for axis in range(len(shape))))


def into_shards(mesh: Mesh, dtype: jax.typing.DTypeLike) -> Callable[[Any, np.ndarray], jax.Array]:
    """A function of a parameter's path and host array, for loading: sends each device its shard, stored in `dtype`."""

    def place_parameter(path: Any, array: np.ndarray) -> jax.Array:
        sharding = parameter_sharding(array.shape, mesh)
        # Only the shards of this host's devices are copied, each into the type that it is stored in.
        return jax.make_array_from_callback(array.shape, sharding, lambda index: np.array(array[index], dtype))

    return place_parameter


def place(tree: Any, shardings: Any) -> Any:
    """Puts a tree of host arrays on the devices. Each device is sent its own shards only.

    Args:
      tree: arrays, each of them whole on every host.
      shardings: a tree of NamedShardings, or one for all leaves.
    """
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda _: shardings, tree)

    def place_leaf(leaf: Any, sharding: NamedSharding) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(place_leaf, tree, shardings)


def abstract(tree: Any, shardings: Any) -> Any:
    """The same of arrays that are not here, concrete or abstract: a tree of ShapeDtypeStructs, for lowering."""
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda _: shardings, tree)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)


def local_rows(batch: int, mesh: Mesh) -> np.ndarray:
    """Which rows of a batch `[B, ...]` are on this host's devices: indices, int `[rows]`, ascending.

    The rows need not be neighbours: a mesh follows how the devices are linked, not how they are numbered.
    """
    indices = batch_sharding(mesh).addressable_devices_indices_map((batch,)).values()
    return np.unique(np.concatenate([np.arange(batch)[index] for index in indices]))


def place_batch(tree: Any, batch: int, mesh: Mesh) -> Any:
    """Makes global arrays `[B, ...]` from this host's rows of a batch.

    Args:
      tree: arrays `[rows, ...]`, with the rows that `local_rows` names, in their order.
      batch: B.
      mesh: the devices.
    """
    rows, sharding = local_rows(batch, mesh), batch_sharding(mesh)

    def place_leaf(leaf: Any) -> jax.Array:
        local = np.asarray(leaf)

        def of_device(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None  # JAX's signature allows None, which it has for no sharding of ours
            start, stop, _ = index[0].indices(batch)
            first = np.searchsorted(rows, start)
            return local[first : first + stop - start]

        return jax.make_array_from_callback((batch, *local.shape[1:]), sharding, of_device)

    return jax.tree.map(place_leaf, tree)


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"


def local_part(array: jax.Array) -> np.ndarray:
    """What this host's devices have of an array `[B, ...]` whose B is split: the rows that `local_rows` names."""
    shards = {shard.index[0].indices(len(array))[0]: shard for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start].data) for start in sorted(shards)])


def gathered(array: jax.Array) -> np.ndarray:
    """The whole array on the host of every process; where there are several, all of them call this together."""
    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
