"""Inception-2015 against torch-fidelity's and pytorch-fid's, and its weights: found, fetched, converted, refused."""

import re
import shutil

import jax
import numpy as np
import pytest
import torch
import torch_inception
from flax import nnx

from sid_jax.errors import UserError
from sid_jax.evaluation import features
from sid_jax.formats import state_dict
from sid_jax.formats.release import sha256_of
from sid_jax.runtime.devices.mesh import make_mesh

TOLERANCE = 3e-4  # of a feature's standard deviation


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The random network's file, as the published one is: a dict in PyTorch's form of old."""
    file = tmp_path_factory.mktemp("released") / "weights.pth"
    torch.save(dict(torch_inception.state_dict()), file, _use_new_zipfile_serialization=False)
    return file


@pytest.fixture(scope="module")
def inception(released):
    return features.open_inception(released)


def check(found, expected):
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * expected.std(), np.abs(found - expected).max() / expected.std()


def test_it_is_the_published_network():
    module = features.abstract_inception()
    slots = state_dict.layout(module)
    named = torch_inception.state_dict()
    assert slots.keys() == {name for name in named if not name.endswith("num_batches_tracked")}
    assert len(slots) == 472 and len(named) == 566
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(module))) == 23_885_392


def test_features_at_every_depth(inception):
    """At 139 px, where 3x3 pixels are left at the end: the network is convolutional up to the mean."""
    side = 139
    images = torch_inception.pictures(2, side, side, seed=1)
    graph = nnx.graphdef(features.abstract_inception())
    found = jax.jit(lambda params, x: nnx.merge(graph, params)(x))(inception.params, (images - np.float32(128)) / 128)
    expected = torch_inception.resized(torch_inception.network(), images, side)
    for ours, name in zip(found, torch_inception.FEATURES, strict=True):
        check(np.asarray(ours), expected[name])
    as_input = ((torch.from_numpy(images).float() - 128) / 128).permute(0, 3, 1, 2)
    with torch.no_grad():
        for ours, other in zip(found[:4], torch_inception.by_pytorch_fid()(as_input), strict=True):
            check(np.asarray(ours), other.mean((2, 3)))


@pytest.mark.slow  # the full size: half a minute
def test_images_to_features(inception):
    images = torch_inception.pictures(5, seed=2)
    expected = torch_inception.resized(torch_inception.network(), images)
    program = features.InceptionFeatures(inception, "tf1", make_mesh())
    pool, logits = program(images)
    check(pool, expected["2048"])
    check(logits, expected["logits_unbiased"])
    last_pool, last_logits = program(images[:2])  # by the same program
    np.testing.assert_array_equal(last_pool, pool[:2])
    np.testing.assert_array_equal(last_logits, logits[:2])
    assert program._program._cache_size() == 1
    fid = torch_inception.by_pytorch_fid()
    fid.resize_input = fid.normalize_input = True
    with torch.no_grad():
        *_, expected = fid(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    pool, _ = features.InceptionFeatures(inception, "torch", make_mesh())(images)
    check(pool, expected[:, :, 0, 0])


def test_everything_is_multiplied_in_float32(inception):
    """On a TPU the default is bfloat16, on a GPU TF32."""
    text = features.InceptionFeatures(inception, "clean", make_mesh()).lower(2, 64, 48).as_text()
    products = re.findall(r"stablehlo\.(?:dot_general|convolution|dot)\b.*", text)
    assert len(products) >= 94 + 1 + 2
    for product in products:
        assert product.count("HIGHEST") == 2 and "bf16" not in product, product


def test_weights_are_fetched_and_converted_once(inception, released, tmp_path, monkeypatch):
    """What is fetched is looked at before it is read, and the cache is enough afterwards."""
    monkeypatch.setenv("SID_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(features, "is_offline_mode", lambda: False)
    served = tmp_path / "served"
    served.mkdir()
    shutil.copy(released, served / "b.pth")
    monkeypatch.setattr(features, "RELEASE", {"a.pth": served.as_uri(), "b.pth": served.as_uri()})
    with pytest.raises(UserError, match="another SHA-256") as caught:
        (served / "a.pth").write_bytes(b"something else")
        monkeypatch.setattr(features, "DIGEST", "0" * 8)
        features.open_inception()
    assert f"put it into {tmp_path / 'cache'}" in str(caught.value) and "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.setattr(features, "DIGEST", sha256_of(released)[:8])
    found = features.open_inception("")
    assert found.sha256 == inception.sha256 and found.released
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [f"{features.STEM}.safetensors"]
    shutil.rmtree(served)
    np.testing.assert_array_equal(features.open_inception().params.fc.bias[...], inception.params.fc.bias[...])
    # The converted file, by its name, is the same network; whose it is nobody can tell.
    named = features.open_inception(tmp_path / "cache" / f"{features.STEM}.safetensors")
    assert named.sha256 == inception.sha256 and named.released is None


def test_a_file_that_the_user_has_put_into_the_cache(inception, released, tmp_path, monkeypatch):
    monkeypatch.setenv("SID_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(features, "DIGEST", sha256_of(released)[:8])
    name = next(iter(features.RELEASE))
    (tmp_path / name).symlink_to(released)
    monkeypatch.setattr(features, "fetch", None)
    assert features.open_inception().sha256 == inception.sha256
    (tmp_path / f"{features.STEM}.safetensors").unlink()
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(b"cut off")
    with pytest.raises(UserError, match="not the released file"):
        features.open_inception()


def test_what_is_no_file_of_inception(tmp_path, monkeypatch):
    monkeypatch.setenv("SID_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(features, "is_offline_mode", lambda: True)
    reason = r"HF_HUB_OFFLINE is set\); download https://.*\.pth and put it into .*cache, or"
    with pytest.raises(UserError, match=reason):
        features.open_inception()
    for place, reason in [
        (tmp_path, "a folder"),
        (tmp_path / "a.npz", r"from \.pth or \.safetensors"),
        (tmp_path / "a.pth", "no such file"),
        (tmp_path / "a.safetensors", "no such file"),
        ("gs://bucket/a.pth", "must be on a disk"),
    ]:
        with pytest.raises(UserError, match=reason) as caught:
            features.open_inception(place)
        assert "\n" not in str(caught.value)


def test_another_network_is_refused_by_its_keys(tmp_path):
    tensors = {name: tensor.clone() for name, tensor in torch_inception.state_dict().items() if "Mixed_7" not in name}
    tensors["AuxLogits.fc.bias"] = torch.zeros(1000)
    del tensors["fc.bias"]
    tensors["fc.weight"] = torch.zeros(1000, 2048)
    torch.save(tensors, tmp_path / "a.pth")
    reason = r"does not fit Inception-2015: .*AuxLogits\.fc\.bias \[1000\] is not expected"
    with pytest.raises(UserError, match=reason) as caught:
        features.open_inception(tmp_path / "a.pth")
    assert "fc.weight is [1000, 2048], expected [1008, 2048]" in str(caught.value) and "is missing" in str(caught.value)


def test_values_that_are_not_finite(tmp_path):
    tensors = dict(torch_inception.state_dict()) | {"fc.bias": torch.full((1008,), torch.nan)}
    torch.save(tensors, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"fc\.bias has values that are not finite"):
        features.open_inception(tmp_path / "a.pth")


def test_an_unknown_variant(inception):
    with pytest.raises(ValueError, match="tf1"):
        features.InceptionFeatures(inception, "tf2", make_mesh())
