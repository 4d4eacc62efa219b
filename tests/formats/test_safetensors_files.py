"""Safetensors files: all the ways that diffusers lays them out, and all that can be wrong with them."""

import json
import os
import pickle

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from sid_jax.errors import UserError
from sid_jax.formats.safetensors_files import open_weights, write_weights
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


@pytest.mark.parametrize("alone", [True, False])
def test_links_are_followed(tmp_path, alone):
    """As a store of models and downloads have them, into whatever folder; and a folder that is a link itself."""
    folder, store = tmp_path / "unet", tmp_path / "store"
    folder.mkdir()
    store.mkdir()
    if alone:
        save_file(TENSORS, folder / "model.safetensors")
    else:
        write_shards(folder)
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(store / f"blob{number}")
        file.symlink_to(store / f"blob{number}")
    (tmp_path / "link").symlink_to(folder)
    for place in (folder, tmp_path / "link"):
        assert_same(dict(open_weights(place, "model").tensors()), TENSORS)


def test_a_link_to_nothing_is_said_to_be_one(tmp_path):
    (tmp_path / "model.safetensors").symlink_to("../store/blob1")
    with pytest.raises(UserError, match=r"model\.safetensors: a link to \.\./store/blob1, where there is nothing"):
        open_weights(tmp_path, "model")


@pytest.mark.parametrize("name", ["model.safetensors", "one.safetensors", "model.safetensors.index.json"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda file: file.symlink_to("/dev/zero"), lambda file: file.mkdir()])
def test_only_regular_files_are_opened(tmp_path, name, make):
    write_shards(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    if name == "model.safetensors":  # in the place of the only file
        for file in tmp_path.iterdir():
            file.unlink()
    make(tmp_path / name)
    with pytest.raises(UserError, match="no such file"):
        open_weights(tmp_path, "model")


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


@pytest.mark.parametrize("kind", [torch.float64, torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16])
def test_types_that_are_cast_are_what_torch_makes_of_them(tmp_path, kind):
    values = torch.linspace(-3, 3, 13).to(kind)
    save_torch({"a": values.reshape(1, 13)}, tmp_path / "model.safetensors")
    weights = open_weights(tmp_path, "model")
    ((name, array),) = weights.tensors()
    expected = "float32" if kind not in (torch.float16, torch.bfloat16) else str(kind).removeprefix("torch.")
    assert (name, weights.stored["a"]) == ("a", Stored((1, 13), expected))
    assert str(array.dtype) == expected
    np.testing.assert_array_equal(array.astype(np.float32)[0], values.to(torch.float32).numpy())


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (torch.float32, float("nan")),
        (torch.float16, float("inf")),
        (torch.bfloat16, float("-inf")),
        (torch.float64, float("nan")),
        (torch.float64, 1e300),  # beyond float32
        (torch.float8_e4m3fn, float("nan")),
        (torch.float8_e5m2, float("inf")),
    ],
)
@pytest.mark.parametrize("place", [0, 70_000, -1])
def test_what_is_not_finite_is_named_with_its_tensor_and_file(tmp_path, kind, value, place):
    odd = torch.zeros(70_001, dtype=torch.float64)
    odd[place] = value
    save_torch({"fine": torch.full((3,), 448.0).to(kind), "odd": odd.to(kind)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors: tensor odd has values that are not finite"):
        dict(open_weights(tmp_path, "model").tensors())


def test_the_largest_values_are_finite(tmp_path):
    tensors = {str(kind): torch.tensor([torch.finfo(kind).max, torch.finfo(kind).min, 0.0], dtype=kind)
               for kind in (torch.float32, torch.float16, torch.bfloat16)}  # fmt: skip
    save_torch({**tensors, "none": torch.zeros(0, 3)}, tmp_path / "model.safetensors")
    assert len(dict(open_weights(tmp_path, "model").tensors())) == 4


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3438167540\n", "`git lfs pull`"),
        (b"\n<!DOCTYPE html><html>", "a page of a website"),
        (b"<HTML><head>", "a page of a website"),
        (b"", "an empty file"),
    ],
)
def test_what_a_download_left_instead_is_said(tmp_path, content, expected):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors: not a whole safetensors file, but ") as error:
        open_weights(tmp_path, "model")
    assert expected in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("single", [True, False])
def test_shards_that_are_missing_are_named(tmp_path, single):
    write_shards(tmp_path, stem="diffusion_pytorch_model")
    (tmp_path / "two.safetensors").unlink()
    (tmp_path / "one.safetensors").unlink()
    remedy = "fetch it again"
    if single:
        save_file(TENSORS, tmp_path / "diffusion_pytorch_model.safetensors")
        remedy = r"if the weights are in diffusion_pytorch_model\.safetensors, remove the index"
    expected = rf"one\.safetensors: no such file \(and 1 more\), though .*index\.json lists it; {remedy}"
    with pytest.raises(UserError, match=expected):
        open_weights(tmp_path, "diffusion_pytorch_model")


def test_unreadable_type_is_reported_as_the_file_names_it(tmp_path):
    save_file({"a": np.zeros(3, np.int64)}, tmp_path / "model.safetensors")
    assert open_weights(tmp_path, "model").stored == {"a": Stored((3,), "I64")}
