"""State dicts of torch.save: read to the bit without PyTorch, or refused in one line."""

import functools
import io
import os
import re
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sid_jax.errors import UserError
from sid_jax.formats.torch_file import open_torch_file


def saved(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


@functools.cache
def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2).half())


@pytest.fixture
def refusal(tmp_path):
    """A function from bytes to the one line that they are refused with."""

    def reason(data):
        (tmp_path / "a.pth").write_bytes(data)
        with pytest.raises(UserError) as caught:
            dict(open_torch_file(tmp_path / "a.pth").tensors())
        assert str(caught.value).startswith(f"{tmp_path / 'a.pth'}: ") and "\n" not in str(caught.value)
        return str(caught.value)

    return reason


@pytest.mark.parametrize(("zipped", "protocol"), [(True, 2), (True, 3), (True, 4), (False, 2), (False, 3)])
@pytest.mark.parametrize("plain", [False, True])
def test_tensors_are_read_to_the_bit(tmp_path, zipped, protocol, plain):
    expected = network().state_dict()
    expected["shared"] = expected["0.weight"][1:3, :, 1]
    expected["brain"] = torch.arange(3).to(torch.bfloat16)
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
    (tmp_path / "a.pth").write_bytes(saved(dict(expected) if plain else expected, **options))
    opened = open_torch_file(tmp_path / "a.pth")
    found = dict(opened.tensors())
    assert list(found) == list(expected) == list(opened.stored)
    for name, tensor in expected.items():
        assert opened.stored[name] == (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        if tensor.dtype == torch.bfloat16:
            tensor, found[name] = tensor.float(), found[name].astype(np.float32)
        np.testing.assert_array_equal(found[name], tensor.numpy())
    assert found["1.num_batches_tracked"].shape == ()


def test_a_dict_of_state_dicts(tmp_path):
    (tmp_path / "a.pth").write_bytes(saved({"ema": network()[0].state_dict(), "scale": torch.ones(1)}))
    assert list(open_torch_file(tmp_path / "a.pth").stored) == ["ema.weight", "ema.bias", "scale"]


def test_a_state_dict_in_a_checkpoint(tmp_path):
    torch.save({"epoch": 3, "name": "a", "state_dict": network()[0].state_dict()}, tmp_path / "a.pt")
    assert list(open_torch_file(tmp_path / "a.pt", inside="state_dict").stored) == ["weight", "bias"]
    with pytest.raises(UserError, match=r"a\.pt: it has no entry 'model'"):
        open_torch_file(tmp_path / "a.pt", inside="model")


class Call:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


def repacked(change, **options):
    """The zip of a state dict with its entries changed: a function from name and content to content, or None."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved({"a": torch.ones(3)}))) as old,
        zipfile.ZipFile(buffer, "w", **options) as new,
    ):
        for info in old.infolist():
            content = change(info.filename.rpartition("/")[2], old.read(info))
            if content is not None:
                new.writestr(info.filename, content)
    return buffer.getvalue()


def test_what_is_no_state_dict(refusal, tmp_path):
    canary = tmp_path / "canary"
    assert "posix system" in refusal(saved({"a": Call(os.system, f"touch {canary}")}))
    assert "__builtin__ exec" in refusal(saved({"a": Call(exec, f"open({str(canary)!r}, 'w')")}))
    assert "torch.nn.modules" in refusal(saved(network()))
    assert "a dict of tensors is needed" in refusal(saved(torch.ones(3)))
    assert "where a tensor is needed" in refusal(saved({"epoch": 3}))
    assert "DoubleStorage" in refusal(saved({"a": torch.ones(3, dtype=torch.float64)}))
    assert "not a zip" in refusal(b"\x80\x02K\x01.")
    assert "an empty file" in refusal(b"")
    itself = OrderedDict()
    itself["a"] = itself
    assert "where a tensor is needed" in refusal(saved(itself))
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), buffer)
    assert "TorchScript" in refusal(buffer.getvalue())
    assert not canary.exists()


def test_zips_that_are_not_as_torch_writes_them(refusal, tmp_path):
    (tmp_path / "a.pth").write_bytes(repacked(lambda name, content: content))
    assert list(open_torch_file(tmp_path / "a.pth").stored) == ["a"]
    assert "compressed" in refusal(repacked(lambda name, content: content, compression=zipfile.ZIP_DEFLATED))
    assert "no data.pkl" in refusal(repacked(lambda name, content: None if name == "data.pkl" else content))
    assert "data/0' is missing" in refusal(repacked(lambda name, content: None if name == "0" else content))
    assert "does not have 3 values" in refusal(repacked(lambda name, content: content[:8] if name == "0" else content))
    assert "after the end" in refusal(repacked(lambda name, content: content + b"." if name == "data.pkl" else content))


def of_old(value):
    return saved(value, _use_new_zipfile_serialization=False)


def test_files_in_the_form_of_old_that_are_not_as_torch_writes_them(refusal, tmp_path):
    canary = tmp_path / "canary"
    assert "posix system" in refusal(of_old({"a": Call(os.system, f"touch {canary}")}))
    assert "torch.nn.modules" in refusal(of_old(network()))
    assert "DoubleStorage" in refusal(of_old({"a": torch.ones(3, dtype=torch.float64)}))
    data = of_old({"a": torch.ones(3), "b": torch.zeros(2)})
    assert "cut off" in refusal(data[: len(data) // 2])
    assert "bytes left" in refusal(data[:-1])
    assert "after the last storage" in refusal(data + b"\0")
    assert "3 values of float32 by name, 4 by number" in refusal(data.replace(b"\3" + b"\0" * 7, b"\4" + b"\0" * 7))
    assert "little-endian" in refusal(data.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"))
    (key,) = re.findall(rb"FloatStorage\nq.X.\0\0\0([0-9]+)", data)[:1]
    assert "other keys" in refusal(data[::-1].replace(key[::-1], b"1" * len(key), 1)[::-1])
    assert not canary.exists()


@settings(
    max_examples=150, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 20),
    st.booleans(),
)
def test_whatever_the_bytes_are(tmp_path, changes, end, zipped):
    tensors = {"a": torch.ones(3), "b": torch.ones(2, 2)[:, 1]}
    data = bytearray(saved(tensors, _use_new_zipfile_serialization=zipped))
    for place, value in changes:
        data[place % len(data)] = value
    (tmp_path / "a.pth").write_bytes(data[: len(data) // end] if end else data)
    try:
        dict(open_torch_file(tmp_path / "a.pth").tensors())
    except UserError as error:
        assert "\n" not in str(error)
