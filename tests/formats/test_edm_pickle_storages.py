"""Tensors in pickles of EDM and the storages that they are views of: what cannot be is refused in a line."""

import functools
import io
import struct

import edm_files
import pytest
import torch
from edm_files import Call


def with_view(change):
    """A file in which the arguments of one tensor are changed."""
    network = edm_files.network()
    tensor = network.model.enc["8x8_conv"].weight
    function, arguments = tensor.data.__reduce_ex__(4)
    parameter = Call(torch._utils._rebuild_parameter, Call(function, *change(*arguments)), True, {})
    network.model.enc["8x8_conv"]._parameters["weight"] = parameter
    return edm_files.dumps({"ema": network})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s, o, size, stride, *rest: (s, o + 1, size, stride, *rest), "ends at value 109 of a storage of 108"),
        (lambda s, o, size, stride, *rest: (s, -1, size, stride, *rest), "not those of a tensor"),
        (lambda s, o, size, stride, *rest: (s, o, (2**40, 3), (3, 1), *rest), "ends at value"),
        (lambda s, o, size, stride, *rest: (s, o, (2**40,), (0,), *rest), "overlap"),
        (lambda s, o, size, stride, *rest: (s, o, (4, 27), (1, 1), *rest), "overlap"),
        (lambda s, o, size, stride, *rest: (s, o, (4, 27), (-1, 1), *rest), "impossible"),
        (lambda s, o, size, stride, *rest: (s, o, (4, 0), (1, 1), *rest), "impossible"),
        (lambda s, o, size, stride, *rest: (s, o, (4, True), (1, 1), *rest), "impossible"),
        (lambda s, o, size, stride, *rest: (s, o, (4,), (1, 1), *rest), "impossible"),
        (lambda s, o, size, stride, *rest: (s, o, (1,) * 99, (1,) * 99, *rest), "impossible"),
        (lambda s, o, size, stride, *rest: (s, o, size, stride, False, {"a": 1}), "hooks"),
        (lambda s, o, size, stride, *rest: (s, o, size, stride, False, {}, {"a": 1}), "metadata"),
        (lambda s, *rest: (b"", *rest), "not those of a tensor"),
        (lambda s, *rest: rest, "not those of a tensor"),
    ],
)
def test_tensors_that_cannot_be(refusal, change, reason):
    assert reason in refusal(with_view(change))


def test_a_storage_that_two_tensors_share(refusal, opened):
    network = edm_files.network()
    weight = torch.randn(4, 3, 3, 3)
    network.model.enc["8x8_conv"].weight = torch.nn.Parameter(weight)
    network.model.enc["8x8_conv"].register_buffer("also", weight[:2])
    # PyTorch writes the storage twice, once for each tensor; a file that was made by hand names one.
    data = edm_files.dumps({"ema": network})
    assert opened(data).weights("denoiser").stored["model.enc.8x8_conv.also"].shape == (2, 3, 3, 3)
    storage = weight.untyped_storage()
    one = Call(torch.storage._load_from_bytes, legacy(weight))
    for name, rows in (("weight", 4), ("also", 2)):
        function, arguments = weight[:rows].__reduce_ex__(4)
        network.model.enc["8x8_conv"]._buffers[name] = Call(function, one, *arguments[1:])
    del network.model.enc["8x8_conv"]._parameters["weight"]
    assert storage and "shares its storage" in refusal(edm_files.dumps({"ema": network}))


def legacy(tensor):
    """The bytes of a tensor's storage."""
    buffer = io.BytesIO()
    torch.save(tensor._typed_storage(), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def with_storage(data):
    network = edm_files.network()
    weight = network.model.enc["8x8_conv"].weight
    function, arguments = weight.data.__reduce_ex__(4)
    storage = Call(torch.storage._load_from_bytes, data)
    network.model.enc["8x8_conv"]._parameters["weight"] = Call(function, storage, *arguments[1:])
    return edm_files.dumps({"ema": network})


@functools.cache
def storage_bytes():
    return legacy(edm_files.network().model.enc["8x8_conv"].weight.data)


def test_storages_that_are_not_whole(refusal, opened):
    whole = storage_bytes()
    opened(with_storage(whole))
    count = struct.pack("<q", 108)
    assert whole.count(count) == 1
    assert "108 values by name" in refusal(with_storage(whole.replace(count, struct.pack("<q", 107))))
    assert "108 values by name" in refusal(with_storage(whole.replace(count, struct.pack("<q", 2**40))))
    assert "108 values by name" in refusal(with_storage(whole.replace(count, struct.pack("<q", -1))))
    assert "108 values by name" in refusal(with_storage(whole[:-4]))
    assert "108 values by name" in refusal(with_storage(whole + bytes(4)))
    assert "cut off" in refusal(with_storage(whole[: whole.index(count)]))
    assert "cut off" in refusal(with_storage(whole[:40]))
    assert "cut off" in refusal(with_storage(b""))
    assert "little-endian" in refusal(with_storage(whole.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")))
    assert "not a storage" in refusal(with_storage(whole.replace(b"M\xe9\x03.", b"M\xe8\x03.", 1)))
    for dtype in (torch.float16, torch.float64, torch.int64):
        assert "FloatStorage" in refusal(with_storage(legacy(torch.ones(108, dtype=dtype))))
    buffer = io.BytesIO()
    torch.save(torch.ones(108)._typed_storage(), buffer)
    assert "zip" in refusal(with_storage(buffer.getvalue()))
    hostile = whole.replace(b"ctorch\nFloatStorage\n", b"cos\nsystem\n")
    assert hostile != whole and "os system" in refusal(with_storage(hostile))
    assert "persistent id" in refusal(with_storage(whole.replace(b"storage", b"module_", 1)))
