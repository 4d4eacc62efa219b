"""What is done to images before a feature network sees them: by PIL where a protocol makes bytes, else on the devices.

The same images have another FID under another resize (docs/evaluate.md), so each is its owner's to a rounding error. A
resize to bytes is PIL's, which rounds between the rows and the columns: nothing else gives its bytes. A resize that
stays in float32 is two matrix products, with weights made once for each size.
"""

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

SIDE = 299
"""Pixels of the side of Inception's input."""

VARIANTS = ("tf1", "torch", "clean", "patch")
"""What Inception's input is made by: see `network_input`."""


def centre_crop(image: np.ndarray, offset: str = "round") -> np.ndarray:
    """The square in the middle of an image, as large as its shorter side.

    Args:
      image: uint8 `[H, W, 3]`.
      offset: where it begins where what is cut off is odd: "round" as torchvision's (half to even), or "floor".
    """
    side = min(image.shape[:2])
    top, left = (_begin(length, side, offset) for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def lanczos(image: np.ndarray, size: int) -> np.ndarray:
    """An image, uint8 `[H, W, 3]`, as one of `size` x `size` by PIL's Lanczos."""
    return _resized(image, size, Image.Resampling.LANCZOS)


def bicubic(image: np.ndarray, size: int) -> np.ndarray:
    """An image, uint8 `[H, W, 3]`, as one of `size` x `size` by PIL's bicubic."""
    return _resized(image, size, Image.Resampling.BICUBIC)


@functools.cache
def threads() -> ThreadPoolExecutor:
    """For PIL, which lets others run while it works."""
    return ThreadPoolExecutor(min(os.cpu_count() or 1, 32), thread_name_prefix="pictures")


def in_threads(transform: Callable[[np.ndarray], np.ndarray], images: Iterable[np.ndarray]) -> list[np.ndarray]:
    """`transform` of each image, in their order; PIL lets other threads run while it computes.

    Args:
      transform: of an image.
      images: which may differ in size.
    """
    return list(threads().map(transform, images))


def network_input(images: jax.Array, variant: str) -> jax.Array:
    """Inception's input, by the name of a variant: what `to_299` has, or "patch", the centre of the raw pixels.

    Args:
      images: float32 `[B, H, W, 3]` in 0..255.
      variant: one of `VARIANTS`.

    Returns:
      float32 `[B, 299, 299, 3]` in -1..1.
    """
    return to_299(patch_299(images), "clean") if variant == "patch" else to_299(images, variant)


def to_299(images: jax.Array, variant: str) -> jax.Array:
    """Images in the size of Inception's input, and in its scale; to be called within jit.

    Args:
      images: float32 `[B, H, W, 3]` in 0..255.
      variant: "tf1", of TensorFlow 1: bilinear, output i reads at i n / 299, clamped at the end; then (v - 128) / 128.
        "torch", of pytorch-fid: bilinear with half-pixel centres, no antialias; then v / 127.5 - 1.
        "clean", of clean-fid: PIL's bicubic in float32, with antialias, clipped to 0..255; then (v - 128) / 128.

    Returns:
      float32 `[B, 299, 299, 3]`.
    """
    make = _WEIGHTS[variant]
    height, width = images.shape[1:3]
    resized = images
    if width != SIDE:
        resized = jnp.einsum("jw,bhwc->bhjc", make(width, SIDE), resized, precision=jax.lax.Precision.HIGHEST)
    if height != SIDE:
        resized = jnp.einsum("ih,bhwc->biwc", make(height, SIDE), resized, precision=jax.lax.Precision.HIGHEST)
    if variant == "torch":
        return resized / 127.5 - 1
    if variant == "clean":
        resized = jnp.clip(resized, 0, 255)
    return (resized - 128) / 128


def patch_299(images: jax.Array) -> jax.Array:
    """The middle 299 x 299 pixels of images `[B, H, W, 3]`; where a side is shorter than that, the whole images."""
    if min(images.shape[1:3]) < SIDE:
        return images
    top, left = (_begin(length, SIDE, "round") for length in images.shape[1:3])
    return images[:, top : top + SIDE, left : left + SIDE]


def _begin(length: int, wanted: int, offset: str) -> int:
    """Where the middle `wanted` of `length` pixels begin."""
    return round((length - wanted) / 2) if offset == "round" else (length - wanted) // 2


def _resized(image: np.ndarray, size: int, resampling: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size, size), resampling))


def _two_taps(positions: np.ndarray, size: int) -> np.ndarray:
    """The weights of linear interpolation at positions, `[positions, size]`; positions are float32 as their owners'."""
    low = positions.astype(np.int64)
    share = positions - low.astype(np.float32)
    weights = np.zeros((len(positions), size), np.float32)
    rows = np.arange(len(positions))
    weights[rows, low] += 1 - share
    weights[rows, np.minimum(low + 1, size - 1)] += share
    return weights


@functools.cache
def _tf1(size: int, side: int) -> np.ndarray:
    """Resampling as `tf.image.resize_bilinear` of TensorFlow 1 has it, without `align_corners`."""
    return _two_taps(np.arange(side, dtype=np.float32) * np.float32(size / side), size)


@functools.cache
def _torch(size: int, side: int) -> np.ndarray:
    """Resampling as `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` has it."""
    positions = np.float32(size / side) * (np.arange(side, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    return _two_taps(np.maximum(positions, np.float32(0)), size)


@functools.cache
def _clean(size: int, side: int) -> np.ndarray:
    """Resampling as PIL's bicubic has it: a = -0.5, and stretched where the image becomes smaller."""
    scale = size / side
    stretch = max(scale, 1.0)
    weights = np.zeros((side, size))
    for i in range(side):
        centre = (i + 0.5) * scale
        first, end = max(int(centre - 2 * stretch + 0.5), 0), min(int(centre + 2 * stretch + 0.5), size)
        distance = np.abs((np.arange(first, end) - centre + 0.5) / stretch)
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        taps = np.where(distance < 1, near, np.where(distance < 2, far, 0))
        weights[i, first:end] = taps / taps.sum()
    return weights.astype(np.float32)


_WEIGHTS: dict[str, Callable[[int, int], np.ndarray]] = {"tf1": _tf1, "torch": _torch, "clean": _clean}
