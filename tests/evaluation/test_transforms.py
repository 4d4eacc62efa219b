"""Resizes and crops against their owners': torch-fidelity, pytorch-fid, clean-fid, torchvision and PIL."""

import cleanfid.resize
import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torchvision.transforms.functional import center_crop

from sid_jax.evaluation import transforms

SIZES = [(32, 64), (256, 300), (299, 512), (1024, 640)]


def pictures(height, width, count=1):
    """Noise with edges: every byte, and neighbours that differ by as much as they can."""
    noise = np.random.default_rng([height, width]).integers(0, 256, (count, height, width, 3))
    return np.where(noise < 32, 0, np.where(noise > 223, 255, noise)).astype(np.uint8)


def as_torch(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def by_tensorflow(images):
    size = (transforms.SIDE, transforms.SIDE)
    resized = interpolate_bilinear_2d_like_tensorflow1x(as_torch(images), size=size, align_corners=False)
    return ((resized - 128) / 128).permute(0, 2, 3, 1).numpy()


def by_pytorch(images):
    size = (transforms.SIDE, transforms.SIDE)
    resized = torch.nn.functional.interpolate(as_torch(images) / 255, size=size, mode="bilinear", align_corners=False)
    return (2 * resized - 1).permute(0, 2, 3, 1).numpy()


def by_clean_fid(images):
    resize = cleanfid.resize.build_resizer("clean")
    return (np.stack([resize(image) for image in images]) - 128) / 128


OWNERS = {"tf1": by_tensorflow, "torch": by_pytorch, "clean": by_clean_fid}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", OWNERS)
def test_inputs_are_their_owners(variant, size):
    images = pictures(*size)
    found = np.asarray(transforms.to_299(images.astype(np.float32), variant))
    assert found.shape == (len(images), 299, 299, 3) and found.dtype == np.float32
    # 2e-3 of a byte's 255 levels is four times as much as is asked for here, in the scale of the network's input.
    np.testing.assert_allclose(found, OWNERS[variant](images), rtol=0, atol=1e-3)


def test_the_inputs_differ():
    images = pictures(256, 256).astype(np.float32)
    found = [np.asarray(transforms.network_input(images, variant)) * 128 for variant in ("tf1", "torch", "clean")]
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert np.abs(found[one] - found[other]).max() > 9


def test_a_patch_is_the_middle_of_the_raw_pixels():
    images = pictures(512, 641)
    found = np.asarray(transforms.network_input(images.astype(np.float32), "patch"))
    expected = center_crop(as_torch(images), 299).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(found, (expected - 128) / 128)
    # A side is too short: the whole image, in clean-fid's size.
    small = pictures(298, 512)
    found = np.asarray(transforms.network_input(small.astype(np.float32), "patch"))
    np.testing.assert_allclose(found, by_clean_fid(small), rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [(40, 61), (63, 40), (41, 44), (44, 44)])
def test_bytes_of_the_host_are_those_of_torchvision_and_pil(size):
    image = pictures(*size)[0]
    cropped = center_crop(Image.fromarray(image), min(size))
    np.testing.assert_array_equal(transforms.centre_crop(image), cropped)
    expected = cropped.resize((20, 20), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(transforms.lanczos(transforms.centre_crop(image), 20), expected)
    expected = expected.resize((24, 24), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(
        transforms.bicubic(transforms.lanczos(transforms.centre_crop(image), 20), 24), expected
    )


def test_offsets_of_a_crop_are_rounded_or_floored():
    image = np.arange(43, dtype=np.uint8)[None, :, None].repeat(40, 0).repeat(3, 2)
    assert transforms.centre_crop(image)[0, 0, 0] == 2
    assert transforms.centre_crop(image, "floor")[0, 0, 0] == 1


def test_threads_keep_the_order():
    images = [pictures(30 + i, 30)[0] for i in range(20)]
    found = transforms.in_threads(lambda image: transforms.lanczos(image, 8), images)
    np.testing.assert_array_equal(found, [transforms.lanczos(image, 8) for image in images])
