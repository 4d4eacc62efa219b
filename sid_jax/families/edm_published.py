"""What the published teachers of EDM record of themselves: the `init_kwargs` of their preconditioners.

By these a plan needs no download. The files are at https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/ and have these
names, with `.pkl`; all are of the class EDMPrecond.
"""

from typing import Any

_DDPMPP = {
    "model_type": "SongUNet", "embedding_type": "positional", "encoder_type": "standard", "decoder_type": "standard",
    "channel_mult_noise": 1, "resample_filter": [1, 1], "model_channels": 128, "augment_dim": 9, "use_fp16": False,
}  # fmt: skip
_NCSNPP = {
    **_DDPMPP,
    "embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1],
}  # fmt: skip
_ADM = {"model_type": "DhariwalUNet", "model_channels": 192, "channel_mult": [1, 2, 3, 4], "use_fp16": True}


def _kwargs(network: dict[str, Any], resolution: int, classes: int, dropout: float, **more: Any) -> dict[str, Any]:
    images = {"img_resolution": resolution, "img_channels": 3, "label_dim": classes}
    return {**images, **network, "dropout": dropout, **more}


_SMALL, _LARGE = {"channel_mult": [2, 2, 2]}, {"channel_mult": [1, 2, 2, 2]}

PUBLISHED: dict[str, dict[str, Any]] = {
    "edm-cifar10-32x32-uncond-vp": _kwargs(_DDPMPP, 32, 0, 0.13, **_SMALL),
    "edm-cifar10-32x32-cond-vp": _kwargs(_DDPMPP, 32, 10, 0.13, **_SMALL),
    "edm-cifar10-32x32-uncond-ve": _kwargs(_NCSNPP, 32, 0, 0.13, **_SMALL),
    "edm-cifar10-32x32-cond-ve": _kwargs(_NCSNPP, 32, 10, 0.13, **_SMALL),
    "edm-ffhq-64x64-uncond-vp": _kwargs(_DDPMPP, 64, 0, 0.05, **_LARGE),
    "edm-ffhq-64x64-uncond-ve": _kwargs(_NCSNPP, 64, 0, 0.05, **_LARGE),
    "edm-afhqv2-64x64-uncond-vp": _kwargs(_DDPMPP, 64, 0, 0.25, **_LARGE),
    "edm-afhqv2-64x64-uncond-ve": _kwargs(_NCSNPP, 64, 0, 0.25, **_LARGE),
    "edm-imagenet-64x64-cond-adm": _kwargs(_ADM, 64, 1000, 0.10),
}
"""By name of the file, what it is made with."""
