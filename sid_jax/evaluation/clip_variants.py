"""Scores of images and prompts by CLIP's two towers: for each the network, what is done to images, and its value.

The CLIP score is the mean cosine of the embeddings of image and prompt. Papers use several networks and resizes, whose
scores differ, so each has a name of its own. Preference scores come from such towers that were trained further.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from sid_jax.evaluation.transforms import bicubic, centre_crop, lanczos
from sid_jax.models.layers.bicubic import torch_bicubic

OnHost = Callable[[np.ndarray, int], np.ndarray]
"""The bytes of an image `[H, W, 3]` and the side of the network's input -> what goes to the devices, `[h, w, 3]`."""
OnDevice = Callable[[jax.Array, int], jax.Array]
"""Pixels in 0..255, float32 `[B, h, w, 3]`, and that side -> `[B, side, side, 3]`."""

_L14 = "openai/clip-vit-large-patch14"
_H14 = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
_G14 = "laion/CLIP-ViT-g-14-laion2B-s12B-b42K"


@dataclass(frozen=True)
class Variant:
    """One score.

    Attributes:
      about: what it is, and who reports it.
      network: where its network is by default: a hub id, or a file of a repository.
      value: what is averaged: "cosine", "percent" (100 times that), "logit" (times the network's own scale), or
        "aesthetic" (a linear head on the image's embedding).
      on_host: what is done to the bytes of an image.
      on_device: what is done to the pixels on the devices.
      prefix: is put before each prompt, as tokens.
      texts: where the tokenizer is by default, if not beside the network.
    """

    about: str
    network: str
    value: str
    on_host: OnHost
    on_device: OnDevice
    prefix: str = ""
    texts: str = ""


def _as_is(images: jax.Array, side: int) -> jax.Array:
    del side
    return images


def _lanczos_256(image: np.ndarray, side: int) -> np.ndarray:
    del side
    return lanczos(centre_crop(image), 256)


def _gigagan(image: np.ndarray, side: int) -> np.ndarray:
    return bicubic(_lanczos_256(image, side), side)


def _torch_bicubic(images: jax.Array, side: int) -> jax.Array:
    rows, columns = (torch_bicubic(size, side) for size in images.shape[1:3])
    return jnp.einsum("iy,jx,byxc->bijc", rows, columns, images)


def _shorter_side(image: np.ndarray, side: int, offset: str) -> np.ndarray:
    """The shorter side to `side` by PIL's bicubic, then the square in the middle."""
    height, width = image.shape[:2]
    size = [side if n == min(height, width) else int(side * n / min(height, width)) for n in (width, height)]
    resized = Image.fromarray(image).resize((size[0], size[1]), Image.Resampling.BICUBIC)
    return centre_crop(np.asarray(resized), offset)


def _raw(image: np.ndarray, side: int) -> np.ndarray:
    del side
    return image


def _longer_side(images: jax.Array, side: int) -> jax.Array:
    """The longer side to `side` by torch's bicubic with antialias in float, and black around, as hpsv2 does it."""
    batch, *size, channels = images.shape
    if max(size) == side:
        height, width = size
    else:
        height, width = (round(n * (side / max(size))) for n in size)
        shape, precision = (batch, height, width, channels), jax.lax.Precision.HIGHEST
        images = jax.image.resize(images, shape, "cubic", antialias=True, precision=precision)
    top, left = (side - height) // 2, (side - width) // 2
    around = ((0, 0), (top, side - height - top), (left, side - width - left), (0, 0))
    return jnp.pad(images, around)


_processor = functools.partial(_shorter_side, offset="floor")
_torchvision = functools.partial(_shorter_side, offset="round")

VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "clip_g14_photo": Variant(
            "CLIP score of GigaGAN's evaluation, SiD-LSG's table and DMD2: ViT-g/14, prompts after 'a photo depicts'",
            _G14, "cosine", _gigagan, _as_is, prefix="a photo depicts",
        ),
        "clip_g14": Variant(
            "CLIP score that SiD-LSG and SiD-DiT log while they train: ViT-g/14",
            _G14, "cosine", _lanczos_256, _torch_bicubic,
        ),
        "clip_l14": Variant(
            "CLIP score of torchmetrics: ViT-L/14, 100 * cosine", _L14, "percent", _processor, _as_is
        ),
        "pickscore": Variant(
            "PickScore: ViT-H/14 trained on Pick-a-Pic, its scale * cosine (often printed / 100)",
            "yuvalkirstain/PickScore_v1", "logit", _processor, _as_is, texts=_H14,
        ),
        "aesthetic_v2": Variant(
            "aesthetic score, version 2: a linear head on ViT-L/14, 1 to 10; prompts have no part in it",
            _L14, "aesthetic", _torchvision, _as_is,
        ),
        "hpsv2": Variant(
            "human preference score, version 2.0: ViT-H/14, 100 * cosine",
            "xswu/HPSv2/HPS_v2_compressed.pt", "percent", _raw, _longer_side, texts=_H14,
        ),
        "hpsv2.1": Variant(
            "human preference score, version 2.1: ViT-H/14, 100 * cosine",
            "xswu/HPSv2/HPS_v2.1_compressed.pt", "percent", _raw, _longer_side, texts=_H14,
        ),
    }
)  # fmt: skip
"""All scores, by their names in reports."""
