"""Fingerprints of files: what changes them, and what does not."""

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from sid_jax.errors import UserError
from sid_jax.formats.fingerprint import digest_of_tensors, fingerprint


def tensors(seed):
    draw = np.random.default_rng(seed)
    return {"large": draw.normal(size=(300, 300)).astype(np.float32), "bias": np.zeros(7, np.float16)}


def of(folder, values, name="model.safetensors"):
    folder.mkdir(exist_ok=True)
    save_file(values, folder / name)
    return fingerprint([folder / name])


def test_the_same_weights_are_the_same_at_another_place(tmp_path):
    assert of(tmp_path / "a", tensors(0)) == of(tmp_path / "b", tensors(0), "other.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: tensors(1),
        lambda t: t | {"bias": t["bias"] + 1},
        lambda t: t | {"large": t["large"].T.copy()},
        lambda t: t | {"large": t["large"] * np.float32(1 + 1e-6)},
        lambda t: t | {"bias": t["bias"].astype(np.float32)},
        lambda t: {"large": t["large"], "bias_": t["bias"]},
        lambda t: {"large": t["large"]},
    ],
)
def test_other_weights_are_others(tmp_path, change):
    assert of(tmp_path / "a", tensors(0)) != of(tmp_path / "b", change(tensors(0)))


def test_little_of_a_large_file_is_read(tmp_path):
    file = tmp_path / "a.safetensors"
    of(tmp_path, {"large": np.zeros(1 << 20, np.float32)}, file.name)
    before = fingerprint([file])
    with file.open("r+b") as opened:  # one value, which no training changes alone
        opened.seek(1 << 20)
        opened.write(b"\x01")
    assert fingerprint([file]) == before


@pytest.mark.parametrize(
    "content",
    [b"", b"\x08" + bytes(7) + b"{}", b"\x02" + bytes(7) + b"[]", b"\xff" * 90, b"\x08" + bytes(7) + b'{"a": 1}'],
)
def test_what_is_no_safetensors_file_is_read_whole(tmp_path, content):
    file = tmp_path / "a.safetensors"
    found = set()
    for end in (b"x", b"y"):
        file.write_bytes(content + end)
        found.add(fingerprint([file]))
    assert len(found) == 2


def test_a_file_that_is_gone_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"a\.json: cannot be read"):
        fingerprint([tmp_path / "a.json"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_tensors_of_any_type_and_order_in_memory_are_told_apart(dtype):
    array = np.arange(6).reshape(2, 3).astype(jnp.dtype(dtype))
    digest = digest_of_tensors([("a", array)])
    assert digest_of_tensors([("a", np.asfortranarray(array))]) == digest
    assert digest_of_tensors([("a", array[0, 0])]) != digest_of_tensors([("a", array[0, 1])])  # of no dimensions
    others = [("b", array), ("a", array + 1), ("a", array.reshape(3, 2)), ("a", array.astype(jnp.float16))]
    assert len({digest, *(digest_of_tensors([each]) for each in others)}) == 5
