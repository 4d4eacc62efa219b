"""Pickles of EDM: read to the bit without PyTorch, and whatever else is in one is a line, and nothing is executed."""

import functools
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import tracemalloc

import edm_files
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sid_jax.errors import UserError
from sid_jax.formats.edm_pickle import EDMPickle
from sid_jax.formats.opcodes import Allowed, Refused, interpret


def tensors_of(bundle):
    return dict(bundle.weights("denoiser").tensors())


@pytest.fixture
def opened(tmp_path):
    """A function from bytes to the bundle of a file that has them."""

    def open_bytes(data, name="network-snapshot-000001.pkl"):
        (tmp_path / name).write_bytes(data)
        return EDMPickle(tmp_path / name)

    return open_bytes


@pytest.fixture
def refusal(opened):
    """A function from bytes to the one line that they are refused with."""

    def reason(data, name="network-snapshot-000001.pkl"):
        with pytest.raises(UserError) as caught:
            opened(data, name)
        message = str(caught.value)
        assert name in message and "\n" not in message and len(message) < 1000
        return message

    return reason


@functools.cache
def plain(protocol=4):
    return edm_files.dumps(edm_files.contents(), protocol)


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


class Call:
    """An object that is pickled as the call of something."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state)

    def __reduce__(self):
        return self.reduced


HOSTILE = {
    "os.system": lambda c: Call(os.system, f"touch {c}"),
    "builtins.exec": lambda c: Call(exec, f"open({str(c)!r}, 'w')"),
    "builtins.eval": lambda c: Call(eval, f"open({str(c)!r}, 'w')"),
    "posix.system": lambda c: Call(os.system, f"touch {c}"),
    "functools.partial": lambda c: functools.partial(os.system, f"touch {c}"),
    "builtins.getattr": lambda c: Call(getattr, "abc", "upper"),
    "subprocess.Popen": lambda c: Call(subprocess.Popen, ["touch", str(c)]),
    "collections.OrderedDict": lambda c: Call(__import__("collections").OrderedDict, [("a", 1)]),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("key", ["ema", "loss_fn"])
def test_calls_are_refused_wherever_they_are(refusal, tmp_path, name, protocol, key):
    canary = tmp_path / "canary"
    contents = edm_files.contents() | {key: HOSTILE[name](canary)}
    message = refusal(edm_files.dumps(contents, protocol))
    assert "byte " in message
    assert "OrderedDict" in message if name == "collections.OrderedDict" else "such files do not use" in message
    assert not canary.exists()


def test_the_source_of_a_module_is_not_run(opened, tmp_path):
    canary = tmp_path / "canary"
    opened(edm_files.dumps(edm_files.contents(), source=f"open({str(canary)!r}, 'w')"))
    opened(edm_files.dumps(edm_files.contents(), source=f"open({str(canary)!r}, 'w')\n" * 1000))
    assert not canary.exists()


def spliced(position, code, data=None):
    """A pickle with more opcodes just before its last, or at its start."""
    data = data or plain()
    return data[:2] + code + data[2:] if position == "first" else data[:-1] + code + b"."


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("PERSID", b"Pabc\n"),
        ("BINPERSID", b"NQ"),
        ("EXT1", b"\x82\x01"),
        ("EXT4", b"\x84\x01\x00\x00\x00"),
        ("INST", b"(S'touch x'\nios\nsystem\n"),
        ("INST", b"(ios\nsystem\n"),
        ("OBJ", b"(\x8c\x02os\x8c\x06systemo"),
        ("NEWOBJ_EX", b"NNN\x92"),
        ("DUP", b"2"),
        ("POP", b"0"),
        ("LONG4", b"\x8b\x01\x00\x00\x00\x01"),
        ("NEXT_BUFFER", b"\x97"),
        ("BYTEARRAY8", b"\x96" + bytes(8)),
        ("FROZENSET", b"(\x91"),
        ("0xff", b"\xff"),
    ],
)
@pytest.mark.parametrize("position", ["first", "last"])
def test_opcodes_that_such_files_have_not(refusal, name, code, position):
    message = refusal(spliced(position, code))
    assert "byte " in message
    if name not in ("OBJ", "NEWOBJ_EX", "BINPERSID", "FROZENSET") and not code.startswith(b"(S"):
        assert f"opcode {name}" in message


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (b"ccollections\nOrderedDict\nN\x85b", "BUILD of collections.OrderedDict"),  # BUILD on a global
        (b"}}b0", "BUILD of a dict"),
        (b"\x8c\x02os\x8c\x06system\x93", "os system"),
        (b"NN\x93", "texts are needed"),
        (b"NNR", "REDUCE of None"),
        (b"ccollections\nOrderedDict\n)\x81", "NEWOBJ of collections.OrderedDict"),
        (b"ccollections\nOrderedDict\nNR", "in place of arguments"),
        (b"j\xff\xff\xff\x7f", "BINGET of"),
        (b"t", "there is none"),
        (b"]N\x90", "takes all since a mark"),
        (b"](NK\x01\x90", "no set"),
        (b"]NK\x01s", "no dict"),
        (b"}NK\x01s", "is a key"),
        (b"}(Nu", "keys without values"),
        (b"NKab", "BUILD of"),
        (b"\x80\x04", "PROTO"),
        (b"(", "one value"),
        (b"N", "one value"),
        (b"\x8c\x01\xff", "not UTF-8"),
        (b"cos", "does not end"),
        (b"\x8d" + struct.pack("<Q", 2**40), "cut off"),
        (b"\x8e" + struct.pack("<Q", 2**63), "cut off"),
        (b"B" + struct.pack("<I", 2**32 - 1), "cut off"),
        (b"X" + struct.pack("<I", 2**31), "cut off"),
        (b"cnumpy\ndtype\n\x8c\x02f4\x89\x88\x87R", "other than float64"),
        (b"ctorch.storage\n_load_from_bytes\n\x8c\x02PK\x85R", "bytes of a storage"),
        (b"ctorch.storage\n_load_from_bytes\nC\x04PK\x03\x04\x85R", "zip"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00)K\x01Nt", "one value"),
    ],
)
def test_values_that_such_files_have_not(refusal, code, reason):
    assert reason in refusal(spliced("last", code))


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


def test_a_state_that_holds_itself(refusal, opened):
    network = edm_files.network()
    network._init_kwargs["itself"] = network._init_kwargs
    assert "deeper ones" in refusal(edm_files.dumps({"ema": network}))
    wide = [0] * 20
    for _ in range(12):
        wide = [wide] * 20
    assert "more values" in refusal(edm_files.dumps({"ema": edm_files.network(wide=wide)}))
    network = edm_files.network()
    network.model.dec = network.model.enc
    assert "in two places" in refusal(edm_files.dumps({"ema": network}))
    network = edm_files.network()
    network.model.enc._modules["again"] = network.model.enc
    assert "in two places" in refusal(edm_files.dumps({"ema": network}))
    deep = torch.nn.ModuleDict()
    network.model.dec = deep
    for _ in range(30):
        deep["a"] = torch.nn.ModuleDict()
        deep = deep["a"]
    network.model.enc._modules.pop("again")
    assert "within each other" in refusal(edm_files.dumps({"ema": network}))
    nested = ()
    for _ in range(10):
        nested = (nested,)
    assert opened(edm_files.dumps(edm_files.contents() | {"more": nested})).kind == "EDMPrecond"
    tall = spliced("last", b")" + b"\x85" * 100_000 + b"0")
    assert "opcode POP" in refusal(tall)
    with pytest.raises(Refused, match="more than 1000 opcodes"):
        interpret(io.BytesIO(b"\x80\x04" + b"(" * 1001), Allowed(), most=1000)


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


_OPCODES = [position for opcode, _, position in pickletools.genops(plain())]


@settings(
    max_examples=120, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    st.lists(st.tuples(st.sampled_from(_OPCODES) | st.integers(0, len(plain()) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, 40),
)
def test_whatever_the_bytes_are(tmp_path, changes, more):
    data = bytearray(plain())
    for place, value in changes:
        data[place : place + 1] = bytes([value]) * (more if more > 35 else 1)
    (tmp_path / "a.pkl").write_bytes(data)
    tracemalloc.start()
    try:
        tensors_of(EDMPickle(tmp_path / "a.pkl"))
    except UserError as error:
        assert "\n" not in str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2 << 20
