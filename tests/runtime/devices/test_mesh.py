import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from sid_jax.errors import UserError
from sid_jax.runtime.devices import mesh as meshes

EIGHT_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType
from sid_jax.errors import UserError
from sid_jax.runtime.devices import mesh as meshes

def error_of(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except UserError as error:
        return str(error)
    raise AssertionError("no error")

assert dict(meshes.make_mesh().shape) == {"data": 8, "fsdp": 1}
assert dict(meshes.make_mesh(-1, 4).shape) == {"data": 2, "fsdp": 4}
assert dict(meshes.make_mesh(2, -1).shape) == {"data": 2, "fsdp": 4}
assert dict(meshes.make_mesh(1, 2, devices=jax.devices()[:2]).shape) == {"data": 1, "fsdp": 2}
assert "does not fit 8 devices: their product must be 8" in error_of(meshes.make_mesh, 3, -1)
assert "mesh.data 4 x mesh.fsdp 4 does not fit 8 devices" in error_of(meshes.make_mesh, 4, 4)
assert "does not fit 8 devices" in error_of(meshes.make_mesh, -1, 16)

mesh = meshes.make_mesh(2, 4)
assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)
meshes.check_batch(32, 4, mesh)
assert error_of(meshes.check_batch, 30, 1, mesh) == (
    "batch 30 can't be split over 8 devices x accumulation 1: use a multiple of 8")
assert error_of(meshes.check_batch, 8, 2, mesh).endswith("8 devices x accumulation 2: use a multiple of 16")

batch = meshes.place_batch({"ids": np.arange(16).reshape(16, 1)}, 16, mesh)["ids"]
assert [shard.data.shape for shard in batch.addressable_shards] == [(2, 1)] * 8
np.testing.assert_array_equal(batch, np.arange(16).reshape(16, 1))

host = {"w": np.arange(2**17, dtype=np.float32).reshape(128, 1024), "b": np.ones(3, np.float32)}
shardings = meshes.parameter_shardings(host, mesh)
placed = meshes.place(host, shardings)
assert {shard.data.shape for shard in placed["w"].addressable_shards} == {(128, 256)}
assert placed["b"].is_fully_replicated
assert all((placed[name] == host[name]).all() for name in host)
whole = meshes.place(host, meshes.replicated(mesh))
assert whole["w"].is_fully_replicated

place = meshes.into_shards(mesh, jnp.bfloat16)
shards = place(("w",), host["w"].T).addressable_shards
assert {(shard.data.shape, shard.data.dtype.name) for shard in shards} == {((256, 128), "bfloat16")}
assert all((shard.data == host["w"].T[shard.index].astype(jnp.bfloat16)).all() for shard in shards)
assert place(("b",), host["b"]).is_fully_replicated

step = jax.jit(lambda p, x: jnp.sum(x * p["b"].sum()), in_shardings=(shardings, meshes.batch_sharding(mesh)))
assert step(placed, batch) == 3 * np.arange(16).sum()
"""


def test_eight_devices(eight_devices):
    eight_devices(EIGHT_DEVICES)


def test_one_device_holds_everything():
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    host = {"w": np.ones((512, 512), np.float32), "scalar": np.int32(3)}
    placed = meshes.place(host, meshes.parameter_shardings(host, mesh))
    assert placed["w"].shape == (512, 512)
    assert placed["scalar"] == 3
    assert meshes.place_batch(np.arange(3), 3, mesh).shape == (3,)
    np.testing.assert_array_equal(placed["w"], host["w"])


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((3, 3, 320, 640), PartitionSpec(None, None, None, "fsdp")),
        ((3, 3, 640, 320), PartitionSpec(None, None, "fsdp", None)),
        ((512, 512), PartitionSpec(None, "fsdp")),
        ((49409, 768), PartitionSpec(None, "fsdp")),
        ((49409, 767), PartitionSpec()),
        ((64,), PartitionSpec()),
        ((), PartitionSpec()),
    ],
)
def test_a_parameter_is_split_along_its_largest_divisible_dimension(shape, spec):
    assert meshes.parameter_spec(shape, fsdp=4) == spec
    assert meshes.parameter_spec(shape, fsdp=1) == PartitionSpec()


def test_what_is_small_is_replicated():
    assert meshes.parameter_spec((2**16,), fsdp=4) == PartitionSpec("fsdp")
    assert meshes.parameter_spec((2**16 - 4,), fsdp=4) == PartitionSpec()


def test_shardings_of_shapes_alone():
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    shapes = {"a": jax.ShapeDtypeStruct((4, 4), jnp.float32), "b": [jax.ShapeDtypeStruct((), jnp.int32)]}
    shardings = meshes.parameter_shardings(shapes, mesh)
    assert jax.tree.structure(shardings) == jax.tree.structure(shapes)


@pytest.mark.parametrize(
    ("data", "fsdp", "expected"),
    [
        (8, 1, [0, 1, 2, 3, 4, 5, 6, 7]),
        (2, 4, [[0, 1, 2, 3], [4, 5, 6, 7]]),  # a slice has all parameters
        (-1, 2, [[0, 1], [2, 3], [4, 5], [6, 7]]),
        (1, 8, [[0, 1, 2, 3, 4, 5, 6, 7]]),  # both slices together have them
    ],
)
def test_slices_divide_the_data_first(data, fsdp, expected):
    mesh = meshes.make_mesh(data, fsdp, devices=[Device(i, i // 4) for i in range(8)])
    found = [device.id for device in mesh.devices.flat]
    assert found == np.ravel(expected).tolist()
    assert mesh.devices.shape == (8 // fsdp, fsdp)


@dataclasses.dataclass(frozen=True)
class Device:
    """Stands in for a device of one of several slices; a mesh asks no more of it."""

    id: int
    slice_index: int
    process_index: int = 0
    platform: str = "cpu"
    device_kind: str = "cpu"


@pytest.mark.parametrize(
    ("data", "fsdp", "problem"),
    [
        (0, 1, "mesh.data is 0: use a positive number, or -1 for all devices that are left"),
        (1, -2, "mesh.fsdp is -2: use a positive number"),
        (-1, -1, "mesh.data and mesh.fsdp are both -1"),
        (2, 1, "mesh.data 2 x mesh.fsdp 1 does not fit 1 device: their product must be 1"),
    ],
)
def test_a_wrong_mesh_is_an_error(data, fsdp, problem):
    with pytest.raises(UserError, match=f"^{re.escape(problem)}"):
        meshes.make_mesh(data, fsdp, devices=jax.devices()[:1])


@pytest.mark.parametrize(
    ("batch", "accumulation", "problem"),
    [
        (0, 1, "batch is 0 and accumulation 1: use positive numbers"),
        (4, 0, "batch is 4 and accumulation 0: use positive numbers"),
        (4, 3, "batch 4 can't be split over 1 device x accumulation 3: use a multiple of 3"),
    ],
)
def test_a_wrong_batch_is_an_error(batch, accumulation, problem):
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    with pytest.raises(UserError, match=f"^{re.escape(problem)}$"):
        meshes.check_batch(batch, accumulation, mesh)
