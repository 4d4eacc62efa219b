"""Safetensors files: all the ways that diffusers lays them out, and all that can be wrong with them."""

import json
import pickle

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from sid_jax.errors import UserError
from sid_jax.formats.safetensors_files import inside, open_weights, write_weights
from sid_jax.formats.state_dict import Stored

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.ones(4, np.float16),
    "c": np.zeros((), np.float32),
}


def stored(tensors):
    return {name: Stored(array.shape, str(array.dtype)) for name, array in tensors.items()}


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, array in found.items():
        assert array.dtype == expected[name].dtype
        assert array.shape == expected[name].shape
        assert array.tobytes() == expected[name].tobytes()


def write_shards(folder, stem="model", variant="", files=("one", "two")):
    """Two shards and an index, as diffusers names it."""
    halves = {f"{files[0]}.safetensors": ["a"], f"{files[1]}.safetensors": ["b", "c"]}
    for file, names in halves.items():
        save_file({name: TENSORS[name] for name in names}, folder / file)
    weight_map = {name: file for file, names in halves.items() for name in names}
    index = f"{stem}.safetensors.index.{variant}.json" if variant else f"{stem}.safetensors.index.json"
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder / index


@pytest.mark.parametrize("shard_bytes", [10**6, 24, 1])
def test_what_is_written_is_what_safetensors_reads(tmp_path, shard_bytes):
    tensors = {**TENSORS, "d": np.linspace(0, 1, 8, dtype=ml_dtypes.bfloat16).reshape(2, 4).T}
    write_weights(tmp_path, "model", stored(tensors), tensors.items(), shard_bytes=shard_bytes)
    found = {}
    for file in tmp_path.glob("*.safetensors"):
        found |= load_file(file)
        # The format's specification wants the data aligned.
        assert int.from_bytes(file.read_bytes()[:8], "little") % 8 == 0
    assert_same(found, tensors)
    weights = open_weights(tmp_path, "model")
    assert_same(dict(weights.tensors()), tensors)
    assert weights.stored == stored(tensors)
    if shard_bytes < 10**6:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(array.nbytes for array in tensors.values())
        assert set(index["weight_map"]) == set(tensors)


def test_written_values_are_cast(tmp_path):
    write_weights(tmp_path, "model", {"b": Stored((4,), "float32")}, [("b", TENSORS["b"])])
    assert_same(load_file(tmp_path / "model.safetensors"), {"b": TENSORS["b"].astype(np.float32)})


def test_torch_reads_what_is_written(tmp_path):
    from safetensors.torch import load_file as load_torch

    array = np.arange(4, dtype=ml_dtypes.bfloat16)
    write_weights(tmp_path, "model", {"x": Stored((4,), "bfloat16")}, [("x", array)])
    assert torch.equal(load_torch(tmp_path / "model.safetensors")["x"], torch.arange(4, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("file", "variant"),
    [("model.safetensors", ""), ("model.fp16.safetensors", "fp16"), ("model.ema.safetensors", "ema")],
)
def test_variants(tmp_path, file, variant):
    save_file({"wrong": TENSORS["a"]}, tmp_path / "model.safetensors")
    save_file({"wrong": TENSORS["a"]}, tmp_path / "model.non_ema.safetensors")
    save_file(TENSORS, tmp_path / file)
    assert_same(dict(open_weights(tmp_path, "model", variant).tensors()), TENSORS)


@pytest.mark.parametrize("variant", ["", "fp16"])
def test_shards(tmp_path, variant):
    write_shards(tmp_path, variant=variant)
    assert_same(dict(open_weights(tmp_path, "model", variant).tensors()), TENSORS)


def test_shards_whose_index_has_the_variant_first(tmp_path):
    write_shards(tmp_path, stem="model.fp16")
    assert_same(dict(open_weights(tmp_path, "model", "fp16").tensors()), TENSORS)


def test_missing_file_is_named_with_what_is_there(tmp_path):
    save_file(TENSORS, tmp_path / "model.fp16.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors: no such file \(it has model\.fp16\.safetensors"):
        open_weights(tmp_path, "model")


def test_empty_and_missing_folders(tmp_path):
    with pytest.raises(UserError, match=r"model\.safetensors: no such file \(it has no weights\)"):
        open_weights(tmp_path, "model")
    with pytest.raises(UserError, match="nowhere: no such folder"):
        open_weights(tmp_path / "nowhere", "model")


@pytest.mark.parametrize("name", ["model.bin", "model.ckpt"])
def test_pickle_beside_is_not_read(tmp_path, name):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(UserError, match=rf"it has {name}, a pickle, which is never read; convert it to safetensors"):
        open_weights(tmp_path, "model")


class Trap:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize("dump", [pickle.dump, torch.save])
def test_pickle_under_the_name_of_safetensors_is_not_read(tmp_path, dump):
    with open(tmp_path / "model.safetensors", "wb") as file:
        dump(Trap(), file)
    with pytest.raises(UserError, match=r"model\.safetensors: a pickle, which is never read"):
        open_weights(tmp_path, "model")


@pytest.mark.parametrize("kept", [0, 4, 8, 50, -1])
def test_truncated_file_is_named(tmp_path, kept):
    file = tmp_path / "model.safetensors"
    save_file(TENSORS, file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"model\.safetensors: not a whole safetensors file") as error:
        open_weights(tmp_path, "model")
    assert "\n" not in str(error.value)


def test_folder_in_the_place_of_a_shard(tmp_path):
    write_shards(tmp_path)
    (tmp_path / "one.safetensors").unlink()
    (tmp_path / "one.safetensors").mkdir()
    with pytest.raises(UserError, match=r"one\.safetensors: no such file, though model\.safetensors\.index\.json"):
        open_weights(tmp_path, "model")


@pytest.mark.parametrize(
    "name",
    [
        "../one.safetensors",
        "/etc/one.safetensors",
        "sub/one.safetensors",
        "..",
        "",
        "one.bin",
        "a\0.safetensors",
        "a" * 999,
    ],
)
def test_index_stays_in_its_folder(tmp_path, name):
    folder = tmp_path / "unet"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder, folder / "sub"):
        save_file(TENSORS, place / "one.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UserError, match=r"index\.json: .* is not the name of a safetensors file in the same folder"):
        open_weights(folder, "model")


def test_link_out_of_the_folder_is_not_followed(tmp_path):
    folder = tmp_path / "unet"
    folder.mkdir()
    write_shards(folder)
    (folder / "one.safetensors").rename(tmp_path / "one.safetensors")
    (folder / "one.safetensors").symlink_to(tmp_path / "one.safetensors")
    with pytest.raises(UserError, match=r"one\.safetensors: a link out of its folder"):
        open_weights(folder, "model")


def test_links_of_the_hub_cache_are_followed(tmp_path):
    repository = tmp_path / "models--org--name"
    blobs, folder = repository / "blobs", repository / "snapshots" / "abc" / "unet"
    blobs.mkdir(parents=True)
    folder.mkdir(parents=True)
    write_shards(folder)
    for name in ("one", "two"):
        file = folder / f"{name}.safetensors"
        file.rename(blobs / name)
        file.symlink_to(f"../../../blobs/{name}")
    assert_same(dict(open_weights(folder, "model").tensors()), TENSORS)
    (repository / "blobs").rename(tmp_path / "elsewhere")
    (repository / "blobs").symlink_to(tmp_path / "elsewhere")
    assert not inside(folder, folder / "one.safetensors")


@pytest.mark.parametrize(
    "content", ["", "[]", '{"weight_map": {}}', '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}']
)
def test_malformed_index_is_named(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match=r"model\.safetensors\.index\.json"):
        open_weights(tmp_path, "model")


def test_tensor_in_two_shards_is_an_error(tmp_path):
    index = write_shards(tmp_path)
    save_file({"a": TENSORS["a"], "b": TENSORS["b"]}, tmp_path / "two.safetensors")
    with pytest.raises(UserError, match=rf"{index.name}: tensor 'a' is in more than one"):
        open_weights(tmp_path, "model")


def test_unreadable_type_is_reported_as_the_file_names_it(tmp_path):
    save_file({"a": np.zeros(3, np.int64)}, tmp_path / "model.safetensors")
    assert open_weights(tmp_path, "model").stored == {"a": Stored((3,), "I64")}
