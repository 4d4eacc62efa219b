"""The autoencoder against diffusers' in PyTorch, float32, on small networks with random weights."""

import diffusers
import pytest
import torch

SMALL = {
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "norm_num_groups": 8,
    "layers_per_block": 1,
    "sample_size": 16,
}
# The digits' autoencoder has one channel and one level less.
GREY = {
    **SMALL,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 2,
    "latent_channels": 3,
}


@pytest.fixture
def theirs(varied):
    """A function: fields of a configuration -> diffusers' network."""

    def make(config):
        torch.manual_seed(0)
        return varied(diffusers.AutoencoderKL(**config))

    return make


@pytest.mark.parametrize(
    ("config", "size"),
    [
        pytest.param(SMALL, (16, 24), id="small"),
        pytest.param(SMALL, (13, 22), id="odd"),
        pytest.param(GREY, (8, 8), id="grey"),
    ],
)
def test_encode_is_diffusers(config, size, theirs, ours, close, seeded):
    theirs = theirs(config)
    images, our_images = seeded(1, 2, theirs.config.in_channels, *size)
    with torch.no_grad():
        expected = theirs.encode(images).latent_dist
    mean, log_variance = ours(theirs)(our_images, method="encode")
    close(mean, expected.mean)
    close(log_variance, expected.logvar)


def test_log_variance_is_clipped(theirs, ours, close, seeded):
    theirs = theirs(SMALL)
    with torch.no_grad():
        theirs.quant_conv.bias[4:] = torch.tensor([100.0, -100.0, 0.0, 50.0])
    images, our_images = seeded(2, 1, 3, 8, 8)
    _, log_variance = ours(theirs)(our_images, method="encode")
    close(log_variance, theirs.encode(images).latent_dist.logvar)
    assert (log_variance.min(), log_variance.max()) == (-30, 20)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        pytest.param(SMALL, (4, 6), id="small"),
        pytest.param(SMALL, (5, 3), id="odd"),
        pytest.param(GREY, (4, 4), id="grey"),
    ],
)
def test_decode_is_diffusers(config, size, theirs, ours, close, seeded):
    theirs = theirs(config)
    latents, our_latents = seeded(3, 2, theirs.config.latent_channels, *size)
    with torch.no_grad():
        expected = theirs.decode(latents).sample
    close(ours(theirs)(our_latents, method="decode"), expected)
