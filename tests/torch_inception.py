"""Inception-2015 of torch-fidelity and pytorch-fid with random weights: nothing is fetched, nothing is published."""

import functools
from unittest import mock

import numpy as np
import torch
from pytorch_fid import inception as pytorch_fid
from torch_fidelity import feature_extractor_inceptionv3 as torch_fidelity

FEATURES = ["64", "192", "768", "2048", "logits_unbiased", "logits"]


@functools.cache
def network():
    """torch-fidelity's, whose features have the spread that a trained network's have.

    PyTorch's initial weights give features of 1e-8. So the batch norms are calibrated on noise, and have random scales.
    """
    torch.manual_seed(0)
    extractor = torch_fidelity.FeatureExtractorInceptionV3
    with (
        mock.patch.object(torch_fidelity, "load_state_dict_from_url", lambda *_, **__: {}),
        mock.patch.object(extractor, "load_state_dict"),
    ):
        found = extractor("inception-v3-compat", FEATURES)
    for module in found.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
            torch.nn.init.uniform_(module.weight, 0.8, 1.2)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    found.train()
    resized(found, pictures(4), 107)
    found.INPUT_IMAGE_SIZE = 299
    return found.eval()


def state_dict():
    """Its tensors, named as in the published file."""
    return network().state_dict()


def by_pytorch_fid():
    """pytorch-fid's network with the same weights: from images in 0..1, `[B, 3, H, W]`, to features of four depths."""
    with mock.patch.object(pytorch_fid, "load_state_dict_from_url", lambda *_, **__: state_dict()):
        found = pytorch_fid.InceptionV3([0, 1, 2, 3])
    return found.eval()


def pictures(count, height=40, width=52, seed=0):
    """Bytes `[count, height, width, 3]`: noise of two scales, so that images differ."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (count, 4, 4, 3)).repeat(-(-height // 4), 1).repeat(-(-width // 4), 2)
    fine = generator.integers(-40, 41, (count, height, width, 3))
    return np.clip(coarse[:, :height, :width] + fine, 0, 255).astype(np.uint8)


@torch.no_grad()
def resized(extractor, images, side=299):
    """torch-fidelity's features, by name, of images that it resizes to a side."""
    extractor.INPUT_IMAGE_SIZE = side
    return dict(zip(FEATURES, extractor(torch.from_numpy(images).permute(0, 3, 1, 2)), strict=True))
