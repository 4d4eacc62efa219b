"""Devices: one mesh with axes `data` and `fsdp`, and where on it batches and parameters live.

A batch is split over both axes. A parameter is split over `fsdp` along its largest dimension that divides evenly, and
is replicated over `data`; XLA inserts the collectives. On one device all of this is the identity.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sid_jax.errors import UserError

AXES = ("data", "fsdp")
SMALL = 2**16  # elements; sharding less costs more in latency than it saves in memory


def make_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of `data` x `fsdp` devices; one of the two may be -1, all that the other leaves.

    Args:
        data, fsdp: the config's `mesh.data` and `mesh.fsdp`.
        devices: by default all of them.

    Raises:
        UserError: the shape does not use exactly the devices there are.
    """
    count = len(devices) if devices is not None else jax.device_count()
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
    return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def check_batch(batch: int, accumulation: int, mesh: Mesh) -> None:
    """Finds out whether every device can have an equal share of each of a batch's `accumulation` parts.

    Raises:
        UserError: it can't.
    """
    if batch < 1 or accumulation < 1:
        raise UserError(f"batch is {batch} and accumulation {accumulation}: use positive numbers")
    unit = mesh.size * accumulation
    if batch % unit:
        parts = f"{_devices(mesh.size)} x accumulation {accumulation}"
        raise UserError(f"batch {batch} can't be split over {parts}: use a multiple of {unit}")


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device has whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch [B, ...]: B over both axes."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def parameter_shardings(parameters: Any, mesh: Mesh, small: int = SMALL) -> Any:
    """The shardings of parameters, of optimizer moments and of averages: each leaf by its own shape.

    Args:
        parameters: a pytree of arrays or ShapeDtypeStructs.
        small: leaves of fewer elements are replicated.

    Returns:
        the same tree with a NamedSharding at each leaf.
    """
    return jax.tree.map(
        lambda leaf: NamedSharding(mesh, parameter_spec(leaf.shape, mesh.shape["fsdp"], small)), parameters
    )


def parameter_spec(shape: tuple[int, ...], fsdp: int, small: int = SMALL) -> PartitionSpec:
    """`fsdp` at the largest dimension that it divides, the last of equal ones; nowhere if there is none."""
    divisible = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    if fsdp == 1 or not divisible or np.prod(shape) < small:
        return PartitionSpec()
    largest = max(divisible, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*("fsdp" if axis == largest else None for axis in range(len(shape))))


def place(tree: Any, shardings: Any) -> Any:
    """Puts host arrays, whole on every host, where `shardings` (a tree, or one for all leaves) says.

    Each device is sent its own shard only, and no device ever holds a leaf that is sharded whole.
    """
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda _: shardings, tree)

    def place_leaf(leaf: Any, sharding: NamedSharding) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(place_leaf, tree, shardings)


def place_batch(tree: Any, mesh: Mesh) -> Any:
    """Makes global arrays [B, ...] from this host's part of a batch, [B / hosts, ...] at each leaf."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree)


def to_host(tree: Any) -> Any:
    """Whole numpy arrays of sharded ones, on every host; each leaf is gathered by itself."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda leaf: multihost_utils.process_allgather(leaf, tiled=True), tree)


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"
