"""Pickles of EDM that have in them what none has: it is refused in a line, and nothing is executed."""

import functools
import io
import os
import pickletools
import struct
import subprocess
import tracemalloc

import edm_files
import pytest
import torch
from edm_files import Call, plain, tensors_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sid_jax.errors import UserError
from sid_jax.formats.edm_pickle import EDMPickle
from sid_jax.formats.opcodes import Allowed, Refused, interpret

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


_OPCODES = [position for opcode, _, position in pickletools.genops(plain())]


@settings(
    max_examples=120, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    st.lists(
        st.tuples(st.sampled_from(_OPCODES) | st.integers(0, len(plain()) - 1), st.integers(0, 255)),
        max_size=4,
    ),
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
