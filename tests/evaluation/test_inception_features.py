"""Inception-2015 against torch-fidelity's and pytorch-fid's, and its weights: found, fetched, converted, refused."""

import functools
import re
import shutil

import jax
import numpy as np
import pytest
import torch
import torch_inception
from flax import nnx

from sid_jax.errors import UserError
from sid_jax.evaluation import features, transforms
from sid_jax.formats import state_dict
from sid_jax.formats.release import sha256_of
from sid_jax.models.inception import BasicConv2d, InceptionOutput
from sid_jax.runtime.devices.mesh import make_mesh

TOLERANCE = 3e-4  # of a feature's standard deviation


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """The random network, by a file as the published one is: a dict in PyTorch's form of old."""
    file = tmp_path_factory.mktemp("released") / "weights.pth"
    torch.save(dict(torch_inception.state_dict()), file, _use_new_zipfile_serialization=False)
    found = features.open_inception(file)
    file.unlink()
    return found


class Small(nnx.Module):
    """In place of the whole network, which takes seconds to write and to read."""

    def __init__(self):
        self.Conv2d_1a_3x3 = BasicConv2d(3, 4, 3, nnx.Rngs(0))
        self.fc = nnx.Linear(4, 2, rngs=nnx.Rngs(0))

    def __call__(self, x):
        pool = self.Conv2d_1a_3x3(x).mean((1, 2))
        return InceptionOutput(pool, pool, pool, pool, self.fc(pool), self.fc(pool))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The state dict of a small network, in a file that counts as the released one; and an empty cache."""
    monkeypatch.setattr(features, "abstract_inception", lambda *_: nnx.eval_shape(Small))
    monkeypatch.setattr(features, "is_offline_mode", lambda: False)
    monkeypatch.setenv("SID_JAX_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    tensors = {name: torch.rand(slot.shape) for name, slot in state_dict.layout(nnx.eval_shape(Small)).items()}
    tensors["Conv2d_1a_3x3.bn.num_batches_tracked"] = torch.tensor(3)
    file = tmp_path / "released.pth"
    torch.save(tensors, file, _use_new_zipfile_serialization=False)
    monkeypatch.setattr(features, "DIGEST", sha256_of(file)[:8])
    return file


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


def test_features_of_images_in_float32(inception, monkeypatch):
    """At 139 px, where 3x3 pixels are left at the end: the network is convolutional up to the mean.

    Everything is multiplied in float32: on a TPU the default is bfloat16, on a GPU TF32.
    """
    side = 139
    monkeypatch.setattr(transforms, "SIDE", side)
    images = torch_inception.pictures(2, seed=1)
    program = features.InceptionFeatures(inception, "tf1", make_mesh())
    lowered = program.lower(*images.shape[:3])
    products = re.findall(r"stablehlo\.(?:dot_general|convolution|dot)\b.*", lowered.as_text())
    assert len(products) >= 94 + 1 + 2
    for product in products:
        assert product.count("HIGHEST") == 2 and "bf16" not in product, product
    pool, logits = lowered.compile()(program._params, images)
    expected = torch_inception.resized(torch_inception.network(), images, side)
    check(np.asarray(pool), expected["2048"])
    check(np.asarray(logits), expected["logits_unbiased"])


def test_a_last_batch_needs_no_program_of_its_own(small):
    program = features.InceptionFeatures(features.open_inception(small), "torch", make_mesh())
    images = torch_inception.pictures(5)
    pool, logits = program(images)
    assert pool.shape == (5, 4) and logits.shape == (5, 2)
    last_pool, last_logits = program(images[:2])
    np.testing.assert_array_equal(last_pool, pool[:2])
    np.testing.assert_array_equal(last_logits, logits[:2])
    assert program._program._cache_size() == 1


@pytest.mark.slow  # the full size: a minute
def test_features_at_every_depth(inception):
    images = torch_inception.pictures(5, seed=2)
    ours = images.astype(np.float32)
    graph = nnx.graphdef(features.abstract_inception())

    @functools.partial(jax.jit, static_argnums=2)
    def run(params, x, variant):
        return nnx.merge(graph, params)(transforms.network_input(x, variant))

    expected = torch_inception.resized(torch_inception.network(), images)
    for found, name in zip(run(inception.params, ours, "tf1"), torch_inception.FEATURES, strict=True):
        check(np.asarray(found), expected[name])
    with torch.no_grad():
        expected = torch_inception.by_pytorch_fid()(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    for found, other in zip(run(inception.params, ours, "torch")[:4], expected, strict=True):
        check(np.asarray(found), other.mean((2, 3)))


def test_weights_are_fetched_and_converted_once(small, tmp_path, monkeypatch):
    """What is fetched is looked at before it is read, and the cache is enough afterwards."""
    served, cache = tmp_path / "served", tmp_path / "cache"
    served.mkdir()
    monkeypatch.setattr(features, "RELEASE", {"a.pth": served.as_uri(), "b.pth": served.as_uri()})
    (served / "a.pth").write_bytes(b"something else")
    with pytest.raises(UserError, match="another SHA-256") as caught:
        features.open_inception()
    assert f"put it into {cache}, or name the file" in str(caught.value) and "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []
    shutil.copy(small, served / "b.pth")
    found, named = features.open_inception(), features.open_inception(small)
    assert found.sha256 == named.sha256 and found.released and named.released
    assert [file.name for file in cache.iterdir()] == [f"{features.STEM}.safetensors"]
    shutil.rmtree(served)
    again = features.open_inception()
    jax.tree.map(np.testing.assert_array_equal, again.params, named.params)
    # By its name the converted file is the same network; whose it is nobody can tell.
    converted = features.open_inception(cache / f"{features.STEM}.safetensors")
    assert converted.sha256 == found.sha256 and converted.released is None


def test_a_file_that_the_user_has_put_into_the_cache(small, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "fetch", None)
    file = tmp_path / "cache" / next(iter(features.RELEASE))
    file.parent.mkdir()
    file.write_bytes(b"cut off")
    with pytest.raises(UserError, match="not the released file"):
        features.open_inception()
    shutil.copy(small, file)
    assert features.open_inception().sha256 == features.open_inception(small).sha256


def test_a_cache_that_cannot_be_written(small, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match="SID_JAX_CACHE=FOLDER moves it"):
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


def test_another_network_is_refused_by_its_keys(small):
    tensors = torch.load(small)
    tensors["AuxLogits.fc.bias"] = torch.zeros(7)
    del tensors["fc.bias"]
    tensors["fc.weight"] = torch.zeros(3, 4)
    torch.save(tensors, small)
    with pytest.raises(UserError, match="does not fit Inception-2015: ") as caught:
        features.open_inception(small)
    for problem in ("fc.weight is [3, 4], expected [2, 4]", "AuxLogits.fc.bias [7] is not", "fc.bias [2] is missing"):
        assert problem in str(caught.value)


def test_values_that_are_not_finite(small):
    torch.save(torch.load(small) | {"fc.bias": torch.full((2,), torch.nan)}, small)
    with pytest.raises(UserError, match=r"fc\.bias has values that are not finite"):
        features.open_inception(small)


def test_an_unknown_variant(inception):
    with pytest.raises(ValueError, match="tf1"):
        features.InceptionFeatures(inception, "tf2", make_mesh())
