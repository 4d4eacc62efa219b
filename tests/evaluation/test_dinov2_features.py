"""DINOv2's features of images against PIL's resize and transformers' network, which is small here."""

import json
import pickle
import re

import jax
import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from sid_jax import evaluate, reference
from sid_jax.errors import UserError
from sid_jax.evaluation import request
from sid_jax.evaluation.dinov2_features import MEAN, STD, Dinov2Features
from sid_jax.metrics.frechet import frechet_distance, statistics
from sid_jax.runtime.devices.mesh import make_mesh

WIDTH = 16


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """transformers' network, and the folder that it is in."""
    torch.manual_seed(0)
    small = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 56, "mlp_ratio": 2}
    theirs = transformers.Dinov2Model(transformers.Dinov2Config(**small, image_size=224)).eval()
    folder = tmp_path_factory.mktemp("dinov2")
    theirs.save_pretrained(folder)
    return theirs, folder


@torch.no_grad()
def seen(theirs, images):
    """Their features of images that PIL has resized."""
    resized = np.stack([np.asarray(Image.fromarray(image).resize((224, 224), Image.BICUBIC)) for image in images])
    pixels = torch.from_numpy(((resized / 255 - MEAN) / STD).astype(np.float32)).permute(0, 3, 1, 2)
    return theirs(pixels).pooler_output.numpy()


def test_features_are_those_of_the_resized_bytes(network):
    theirs, folder = network
    features = Dinov2Features(str(folder), make_mesh(devices=jax.devices()[:1]))
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 70, 3), np.uint8)
    expected = seen(theirs, images)
    actual = features(images)
    assert (actual.dtype, actual.shape) == (np.float32, (2, features.width))
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())

    programs = [lowered.as_text() for lowered in features.lower(features.feed(images))]
    products = re.findall(r"stablehlo\.(?:dot_general|convolution)\b.*", "".join(programs))
    assert products and all(product.count("HIGHEST") == 2 for product in products)


def test_fd_dinov2_by_the_commands(network, tmp_path, monkeypatch):
    """Statistics of real pictures and the distance of others; a network of another width than ViT-L's is refused."""
    theirs, folder = network
    sizes = {"real": (50, 12, 12, 3), "made": (30, 12, 12, 3)}
    sets = {name: np.random.default_rng(size).integers(0, 256, size, np.uint8) for name, size in sizes.items()}
    for name, images in sets.items():
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    statistics_of = [
        f"--images={tmp_path / 'real'}", f"--out={tmp_path / 'real.npz'}", "--protocol=ffhq64", "--metric=fd_dinov2",
        f"--dinov2={folder}",
    ]  # fmt: skip
    distance_of = [
        f"--images={tmp_path / 'made'}", f"--reference={tmp_path / 'real.npz'}", "--protocol=ffhq64",
        "--metrics=fd_dinov2", f"--dinov2={folder}", f"--json={tmp_path / 'found.json'}",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"its features have 16 numbers, and those of fd_dinov2 1024: name facebook/"):
        reference.main(statistics_of)
    with pytest.raises(UserError, match="--inception: fd_dinov2 does not need it"):
        reference.main([*statistics_of, "--inception=x"])
    monkeypatch.setitem(request.WIDTHS, "dinov2", WIDTH)
    reference.main(statistics_of)
    evaluate.main(distance_of)
    found = json.loads((tmp_path / "found.json").read_text())
    expected = frechet_distance(*(statistics(seen(theirs, sets[name])) for name in ("made", "real")))
    assert found["rows"]["images"]["fd_dinov2_30"]["value"] == pytest.approx(expected, rel=1e-4)
    assert found["references"]["fd_dinov2"]["about"]["network"] == "DINOv2" and len(found["networks"]["dinov2"]) == 64


def test_edm2s_file_has_statistics_for_both_distances(tmp_path):
    """Each of its own width."""
    widths = {"fid": 2048, "fd_dinov2": 1024}
    content = {name: {"mu": np.full(width, 0.5), "sigma": np.eye(width)} for name, width in widths.items()}
    (tmp_path / "img64.pkl").write_bytes(pickle.dumps({**content, "num_images": 1_281_167}))
    found = request.requested(
        "imagenet64", "fid,fd_dinov2", references=[f"{name}={tmp_path / 'img64.pkl'}" for name in widths]
    ).references
    for name, width in widths.items():
        assert found[name].statistics.mean.shape == (width,) and found[name].count == 1_281_167
    content["fd_dinov2"] = content["fid"]
    (tmp_path / "img64.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="is of features of 2048 numbers, and fd_dinov2 is of DINOv2's 1024"):
        request.requested("imagenet64", "fd_dinov2", references=[str(tmp_path / "img64.pkl")])
