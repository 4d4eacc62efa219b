"""Pickles of EDM: read to the bit without PyTorch, and a file that is none, or not whole, is refused in a line."""

import io
import os
import pickle
import subprocess
import sys

import edm_files
import numpy as np
import pytest
import torch
from edm_files import plain, tensors_of

from sid_jax.errors import UserError
from sid_jax.formats.edm_pickle import EDMPickle


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("old", [False, True])
def test_tensors_are_read_to_the_bit_in_the_order_of_the_state_dict(opened, protocol, old):
    net = edm_files.network()
    data = edm_files.dumps(edm_files.contents(net), protocol)
    bundle = opened(edm_files.of_old_numpy(data) if old else data)
    found, expected = tensors_of(bundle), net.state_dict()
    assert list(found) == list(expected) == list(bundle.weights("denoiser").stored)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())
        assert bundle.weights("denoiser").stored[name] == (tuple(tensor.shape), "float32")
    assert bundle.kind == "EDMPrecond"
    assert bundle.config("denoiser") == edm_files.KWARGS | {"resample_filter": [1, 1]}


def test_what_the_modules_record_is_there_to_be_checked(opened):
    recorded = opened(plain()).recorded
    block = recorded["model.enc.8x8_block0"]
    assert block["class"] == "UNetBlock"
    assert block["skip_scale"] == np.sqrt(0.5) and block["num_heads"] == 0 and block["adaptive_scale"] is False
    assert recorded["model.enc.8x8_block0.conv0"]["up"] is True
    assert recorded[""]["sigma_max"] == float("inf")


def test_classes_of_sida_are_those_of_edm(opened):
    net = edm_files.network(cls=edm_files.EDMPrecond_EncoderDecoder)
    bundle = opened(edm_files.dumps({"ema": net}))
    assert bundle.kind == "EDMPrecond"
    assert tensors_of(bundle).keys() == net.state_dict().keys()


def test_views_that_are_not_in_order(opened):
    net = edm_files.network()
    conv = net.model.enc["8x8_block0"].conv1
    odd = torch.randn(2, 4, 4, 1, 1).permute(0, 2, 1, 3, 4)[1]  # transposed, and not from the start of its storage
    conv.weight = torch.nn.Parameter(odd)
    kernel = torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last)
    net.model.enc["8x8_conv"].weight = torch.nn.Parameter(kernel)
    found = tensors_of(opened(edm_files.dumps({"ema": net})))
    np.testing.assert_array_equal(found["model.enc.8x8_block0.conv1.weight"], odd.numpy())
    np.testing.assert_array_equal(found["model.enc.8x8_conv.weight"], kernel.numpy())


def test_other_things_that_such_files_have(opened):
    net = edm_files.network()
    net.options = edm_files.EasyDict(kernel=3)
    net.register_buffer("scratch", torch.ones(3), persistent=False)
    for protocol in (3, 4):
        found = tensors_of(opened(edm_files.dumps({"ema": net, "dataset_kwargs": edm_files.EasyDict()}, protocol)))
        assert found.keys() == net.state_dict().keys()


READ = """
import sys, resource
from pathlib import Path
from sid_jax.formats.edm_pickle import EDMPickle
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
bundle = EDMPickle(Path(sys.argv[1]))
opened = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
largest = 0
for name, array in bundle.weights("denoiser").tensors():
    largest = max(largest, array.nbytes)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert not {"torch", "pickle_of_nobody"} & sys.modules.keys()
print(opened - before, after - before, largest // 1024)
"""


def test_pytorch_is_not_imported_and_one_tensor_at_a_time_is_held(tmp_path):
    net = edm_files.network()
    for name in ("8x8_block0", "8x8_conv"):
        block = getattr(net.model.enc[name], "conv1", net.model.enc[name])
        block.weight = torch.nn.Parameter(torch.randn(4, 3 << 18, 1, 1))  # 12 MB
    (tmp_path / "a.pkl").write_bytes(edm_files.dumps(edm_files.contents(net)))
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "a.pkl")], capture_output=True, text=True,
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    opened, read, largest = map(int, done.stdout.split())
    assert largest == 12 << 10
    assert opened < 4 << 10 and read < 2 * largest + (4 << 10)  # the next is read before the last is let go


def test_what_is_no_such_file(refusal, tmp_path):
    network = edm_files.network()
    buffer = io.BytesIO()
    torch.save({"net": network.state_dict()}, buffer)
    assert "network-snapshot-*.pkl" in refusal(buffer.getvalue(), "training-state-000001.pt")
    buffer = io.BytesIO()
    torch.save({"net": network.state_dict()}, buffer, _use_new_zipfile_serialization=False)
    assert "network-snapshot-*.pkl" in refusal(buffer.getvalue(), "training-state-000001.pt")
    assert "no network named ema" in refusal(edm_files.dumps({"G": network}))
    assert "no network named ema" in refusal(edm_files.dumps([1]))
    assert "no network" in refusal(edm_files.dumps({"ema": {}}))
    assert "no network" in refusal(edm_files.dumps({"ema": torch.nn.ModuleDict()}))
    assert "protocol 2" in refusal(pickle.dumps({"ema": 1}, 2))
    assert "no pickle begins" in refusal(pickle.dumps({"ema": 1}, 0))
    assert "1 bytes after the end" in refusal(plain() + b".")
    assert "an empty file" in refusal(b"")
    assert "Git LFS" in refusal(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "page of a website" in refusal(b"<!DOCTYPE html><html></html>")
    with pytest.raises(UserError, match="no such file"):
        EDMPickle(tmp_path / "nothing.pkl")
    with pytest.raises(UserError, match="a folder"):
        EDMPickle(tmp_path)
    os.mkfifo(tmp_path / "pipe.pkl")
    with pytest.raises(UserError, match="named pipe"):
        EDMPickle(tmp_path / "pipe.pkl")


def test_networks_of_other_versions_classes_and_arguments(refusal):
    assert "version 5" in refusal(edm_files.dumps(edm_files.contents(), version=5))
    assert "version True" in refusal(edm_files.dumps(edm_files.contents(), version=True))
    other = type("StackedRandomGenerator", (edm_files.EDMPrecond,), {})
    assert "StackedRandomGenerator" in refusal(edm_files.dumps({"ema": edm_files.network(cls=other)}))
    network = edm_files.network()
    network._init_args = (32,)
    assert "_init_args" in refusal(edm_files.dumps({"ema": network}))
    network = edm_files.network()
    network._init_kwargs = [1]
    assert "_init_kwargs are a list" in refusal(edm_files.dumps({"ema": network}))
    network._init_kwargs = {"a": "x" * 2000}
    assert "_init_kwargs have a long text" in refusal(edm_files.dumps({"ema": network}))


def test_big_endian_numbers(refusal):
    data = plain()
    assert "little-endian" in refusal(data.replace(b"\x8c\x01<", b"\x8c\x01>"))


def test_values_that_are_not_finite(opened):
    network = edm_files.network()
    network.model.enc["8x8_conv"].bias.data[1] = float("nan")
    with pytest.raises(UserError, match=r"8x8_conv\.bias has values that are not finite"):
        tensors_of(opened(edm_files.dumps({"ema": network})))


def test_a_file_that_was_cut_off_anywhere(tmp_path):
    data = plain()
    file = tmp_path / "a.pkl"
    for end in np.linspace(0, len(data) - 1, 200).astype(int):
        file.write_bytes(data[:end])
        with pytest.raises(UserError):
            EDMPickle(file)
    file.write_bytes(data)
    bundle = EDMPickle(file)
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="shorter"):
        tensors_of(bundle)
