"""DINOv2's features of images against PIL's resize and transformers' network, which is small here."""

import re

import jax
import numpy as np
import torch
import transformers
from PIL import Image

from sid_jax.evaluation.dinov2_features import MEAN, STD, Dinov2Features
from sid_jax.runtime.devices.mesh import make_mesh


def test_features_are_those_of_the_resized_bytes(tmp_path):
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 56, "mlp_ratio": 2}
    theirs = transformers.Dinov2Model(transformers.Dinov2Config(**small, image_size=224)).eval()
    theirs.save_pretrained(tmp_path)
    features = Dinov2Features(str(tmp_path), make_mesh(devices=jax.devices()[:1]))
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 70, 3), np.uint8)
    resized = np.stack([np.asarray(Image.fromarray(image).resize((224, 224), Image.BICUBIC)) for image in images])
    pixels = torch.from_numpy(((resized / 255 - MEAN) / STD).astype(np.float32)).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = theirs(pixels).pooler_output.numpy()
    actual = features(images)
    assert (actual.dtype, actual.shape) == (np.float32, (2, features.width))
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())

    program = features.lower(features.feed(images)).as_text()
    products = re.findall(r"stablehlo\.(?:dot_general|convolution)\b.*", program)
    assert products and all(product.count("HIGHEST") == 2 for product in products)
