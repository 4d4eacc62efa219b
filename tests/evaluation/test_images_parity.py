"""`evaluate --images` against pytorch-fid and clean-fid on the same pictures and weights.

Of a few pictures the covariances of Inception's features are singular, and scipy's root of their product, which both
take, has imaginary parts: there the files are read, resized and looked at by them, and the distance is ours.
"""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch_inception
from cleanfid import fid as clean_fid
from PIL import Image
from pytorch_fid import fid_score
from small_features import WIDTH, few_numbers, in_place_of_inception

from sid_jax import evaluate
from sid_jax.evaluation import protocols
from sid_jax.metrics.frechet import Statistics, frechet_distance

COUNT = 24


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of 24 pictures of 256 px, which coco30k measures as they are."""
    made = []
    for seed in (0, 1):
        made.append(tmp_path_factory.mktemp("pictures"))
        for i, picture in enumerate(torch_inception.pictures(COUNT, 256, 256, seed)):
            Image.fromarray(picture).save(made[-1] / f"{i:03d}.png")
    return made


@pytest.fixture
def value(monkeypatch, tmp_path):
    """The FID of a folder by the command, with an input of Inception's, against mean and covariance."""

    def measured(folder, variant, mean, covariance, *flags):
        coco = protocols.PROTOCOLS["coco30k"]
        measures = dataclasses.replace(coco.measures[0], variant=variant), *coco.measures[1:]
        monkeypatch.setattr(protocols, "PROTOCOLS", {"coco30k": dataclasses.replace(coco, measures=measures)})
        np.savez(tmp_path / "real.npz", mu=mean, sigma=covariance)
        evaluate.main([
            f"--images={folder}", "--protocol=coco30k", "--metrics=fid", f"--reference={tmp_path / 'real.npz'}",
            f"--json={tmp_path / 'found.json'}", *flags,
        ])  # fmt: skip
        return json.loads((tmp_path / "found.json").read_text())["rows"]["images"][f"fid_{COUNT}"]["value"]

    return measured


class Small(torch.nn.Module):
    """The small network, for pytorch-fid, which gives images in 0..1."""

    def forward(self, images):
        whole = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return [torch.from_numpy(few_numbers(whole, np))[:, :, None, None]]


def test_a_small_network_gives_pytorch_fids_value(folders, value):
    real, made = (fid_score.compute_statistics_of_path(str(each), Small(), 8, WIDTH, "cpu", 0) for each in folders)
    expected = fid_score.calculate_frechet_distance(*made, *real)
    with in_place_of_inception():
        assert value(folders[1], "torch", *real) == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """Random weights as a file of PyTorch's."""
    file = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(torch_inception.state_dict(), file)
    return file


@pytest.mark.slow
def test_inception_gives_pytorch_fids_value(folders, value, inception):
    network = Last(torch_inception.by_pytorch_fid())
    real, made = (fid_score.compute_statistics_of_path(str(each), network, 8, 2048, "cpu", 0) for each in folders)
    expected = frechet_distance(Statistics(*made), Statistics(*real))
    assert value(folders[1], "torch", *real, f"--inception={inception}") == pytest.approx(expected, rel=1e-3)


class Last(torch.nn.Module):
    """The pooled features of a network of pytorch-fid, which resizes images in 0..1 itself."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images)[-1:]


@pytest.mark.slow
def test_inception_gives_clean_fids_value(folders, value, inception):
    network = torch_inception.by_pytorch_fid()

    @torch.no_grad()
    def features(images):
        return network(((images - 128) / 128 + 1) / 2)[-1][:, :, 0, 0]  # of which it takes 2 x - 1

    settings = {"mode": "clean", "num_workers": 0, "batch_size": 8, "device": "cpu", "verbose": False}
    found = (clean_fid.get_folder_features(str(each), model=features, **settings) for each in folders)
    real, made = ((each.mean(0), np.cov(each, rowvar=False)) for each in found)
    expected = frechet_distance(Statistics(*made), Statistics(*real))
    assert value(folders[1], "clean", *real, f"--inception={inception}") == pytest.approx(expected, rel=1e-3)
