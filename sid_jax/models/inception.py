"""Inception-2015, the network whose features FID, IS, precision and recall are of; it is never trained.

It is the graph `inception-2015-12-05` of TensorFlow (Szegedy et al. 2016, arXiv 1512.00567), and not torchvision's
Inception v3: averages count no padding, the last block takes a maximum where the one before takes an average, and there
are 1008 classes. Attributes have the names of the published state dict (github.com/mseitzer/pytorch-fid).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from sid_jax.models.layers import cpu_convolution
from sid_jax.models.layers.frozen_batch_norm import FrozenBatchNorm

FEATURES, CLASSES = 2048, 1008
SMALLEST_SIDE = 75
"""Pixels, below which nothing is left of an image at the end."""

_EPS = 1e-3
Shape = int | tuple[int, int]


class InceptionOutput(NamedTuple):
    """Features at four depths, averaged over the image, and logits; within jit, what is not used is not computed.

    depth_64: after the first max pool, `[B, 64]`.
    depth_192: after the second, `[B, 192]`.
    depth_768: before `Mixed_7a`, `[B, 768]`.
    pool: the features of FID, `[B, 2048]`.
    logits_without_bias: those of the inception score, `[B, 1008]`.
    logits: `[B, 1008]`.
    """

    depth_64: jax.Array
    depth_192: jax.Array
    depth_768: jax.Array
    pool: jax.Array
    logits_without_bias: jax.Array
    logits: jax.Array


class Block(nnx.Module):
    """What has pools: in XLA's form, or where `InceptionV3` says so in that which is fastest on CPUs."""

    on_cpu = False

    def max_pool(self, x: jax.Array, strides: int = 2, padding: int = 0) -> jax.Array:
        """Of 3x3 pixels: `[B, H, W, C]` -> `[B, H', W', C]`."""
        if self.on_cpu:
            return cpu_convolution.max_pool(x, strides, padding)
        return nnx.max_pool(x, (3, 3), (strides, strides), ((padding, padding), (padding, padding)))

    def average_pool(self, x: jax.Array) -> jax.Array:
        """Of the 3x3 pixels around each one that are within the image: `[B, H, W, C]` -> `[B, H, W, C]`."""
        if self.on_cpu:
            return cpu_convolution.average_pool(x)
        return nnx.avg_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1)), count_include_pad=False)


class BasicConv2d(nnx.Module):
    """A convolution without bias, batch norm, and ReLU.

    Args:
      in_channels: C of the input `[B, H, W, C]`.
      out_channels: C of the output.
      size: of the kernel, along both axes or along rows and columns.
      rngs: for initial parameters.
      strides: along both axes.
      padding: as `size`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: Shape,
        rngs: nnx.Rngs,
        *,
        strides: int = 1,
        padding: Shape = 0,
    ) -> None:
        kernel, around = (each if isinstance(each, tuple) else (each, each) for each in (size, padding))
        self.conv = nnx.Conv(
            in_channels,
            out_channels,
            kernel,
            strides=strides,
            padding=[(each, each) for each in around],
            use_bias=False,
            rngs=rngs,
        )
        self.bn = FrozenBatchNorm(out_channels, _EPS)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` -> `[B, H', W', out_channels]`."""
        return nnx.relu(self.bn(self.conv(x)))


class InceptionA(Block):
    """The blocks at 35 x 35: `[B, H, W, C]` -> `[B, H, W, 224 + pool]`."""

    def __init__(self, channels: int, pool: int, rngs: nnx.Rngs) -> None:
        self.branch1x1 = BasicConv2d(channels, 64, 1, rngs)
        self.branch5x5_1 = BasicConv2d(channels, 48, 1, rngs)
        self.branch5x5_2 = BasicConv2d(48, 64, 5, rngs, padding=2)
        self.branch3x3dbl_1 = BasicConv2d(channels, 64, 1, rngs)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, rngs, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, rngs, padding=1)
        self.branch_pool = BasicConv2d(channels, pool, 1, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """See the class."""
        return _beside(
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(self.average_pool(x)),
        )


class InceptionB(Block):
    """From 35 x 35 to 17 x 17: `[B, H, W, C]` -> `[B, (H - 1) / 2, (W - 1) / 2, 480 + C]`."""

    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        self.branch3x3 = BasicConv2d(channels, 384, 3, rngs, strides=2)
        self.branch3x3dbl_1 = BasicConv2d(channels, 64, 1, rngs)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, rngs, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, rngs, strides=2)

    def __call__(self, x: jax.Array) -> jax.Array:
        """See the class."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return _beside(self.branch3x3(x), double, self.max_pool(x))


class InceptionC(Block):
    """The blocks at 17 x 17: `[B, H, W, C]` -> `[B, H, W, 768]`; `inner` channels are within the branches."""

    def __init__(self, channels: int, inner: int, rngs: nnx.Rngs) -> None:
        self.branch1x1 = BasicConv2d(channels, 192, 1, rngs)
        self.branch7x7_1 = BasicConv2d(channels, inner, 1, rngs)
        self.branch7x7_2 = _along_row(inner, inner, 7, rngs)
        self.branch7x7_3 = _along_column(inner, 192, 7, rngs)
        self.branch7x7dbl_1 = BasicConv2d(channels, inner, 1, rngs)
        self.branch7x7dbl_2 = _along_column(inner, inner, 7, rngs)
        self.branch7x7dbl_3 = _along_row(inner, inner, 7, rngs)
        self.branch7x7dbl_4 = _along_column(inner, inner, 7, rngs)
        self.branch7x7dbl_5 = _along_row(inner, 192, 7, rngs)
        self.branch_pool = BasicConv2d(channels, 192, 1, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """See the class."""
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        return _beside(
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
            self.branch_pool(self.average_pool(x)),
        )


class InceptionD(Block):
    """From 17 x 17 to 8 x 8: `[B, H, W, C]` -> `[B, (H - 1) / 2, (W - 1) / 2, 512 + C]`."""

    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        self.branch3x3_1 = BasicConv2d(channels, 192, 1, rngs)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, rngs, strides=2)
        self.branch7x7x3_1 = BasicConv2d(channels, 192, 1, rngs)
        self.branch7x7x3_2 = _along_row(192, 192, 7, rngs)
        self.branch7x7x3_3 = _along_column(192, 192, 7, rngs)
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, rngs, strides=2)

    def __call__(self, x: jax.Array) -> jax.Array:
        """See the class."""
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return _beside(self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(seven), self.max_pool(x))


class InceptionE(Block):
    """The blocks at 8 x 8: `[B, H, W, C]` -> `[B, H, W, 2048]`.

    Args:
      channels: C.
      takes_maximum: whether its pool is a maximum and not an average, as the graph's last one is.
      rngs: for initial parameters.
    """

    def __init__(self, channels: int, takes_maximum: bool, rngs: nnx.Rngs) -> None:
        self.branch1x1 = BasicConv2d(channels, 320, 1, rngs)
        self.branch3x3_1 = BasicConv2d(channels, 384, 1, rngs)
        self.branch3x3_2a = _along_row(384, 384, 3, rngs)
        self.branch3x3_2b = _along_column(384, 384, 3, rngs)
        self.branch3x3dbl_1 = BasicConv2d(channels, 448, 1, rngs)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3, rngs, padding=1)
        self.branch3x3dbl_3a = _along_row(384, 384, 3, rngs)
        self.branch3x3dbl_3b = _along_column(384, 384, 3, rngs)
        self.branch_pool = BasicConv2d(channels, 192, 1, rngs)
        self.takes_maximum = takes_maximum

    def __call__(self, x: jax.Array) -> jax.Array:
        """See the class."""
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return _beside(
            self.branch1x1(x),
            self.branch3x3_2a(three),
            self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(self.max_pool(x, 1, 1) if self.takes_maximum else self.average_pool(x)),
        )


class InceptionV3(Block):
    """The whole network. All products are in float32, whatever the device would use by itself: TF32 and bfloat16 move
    features by more than the spread of a FID.

    Args:
      rngs: for initial parameters, which nobody uses but to see their shapes.
      on_cpu: whether it is to run on CPUs: the same network, in forms that are faster there.
    """

    def __init__(self, rngs: nnx.Rngs, on_cpu: bool = False) -> None:
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, rngs, strides=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3, rngs)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3, rngs, padding=1)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1, rngs)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3, rngs)
        self.Mixed_5b = InceptionA(192, 32, rngs)
        self.Mixed_5c = InceptionA(256, 64, rngs)
        self.Mixed_5d = InceptionA(288, 64, rngs)
        self.Mixed_6a = InceptionB(288, rngs)
        self.Mixed_6b = InceptionC(768, 128, rngs)
        self.Mixed_6c = InceptionC(768, 160, rngs)
        self.Mixed_6d = InceptionC(768, 160, rngs)
        self.Mixed_6e = InceptionC(768, 192, rngs)
        self.Mixed_7a = InceptionD(768, rngs)
        self.Mixed_7b = InceptionE(1280, False, rngs)
        self.Mixed_7c = InceptionE(2048, True, rngs)
        self.fc = nnx.Linear(FEATURES, CLASSES, rngs=rngs)
        if on_cpu:
            for _, layer in nnx.iter_modules(self):
                if isinstance(layer, nnx.Conv):
                    layer.conv_general_dilated = cpu_convolution.convolution
                elif isinstance(layer, Block):
                    layer.on_cpu = True

    def __call__(self, x: jax.Array) -> InceptionOutput:
        """The features of images.

        Args:
          x: float32 `[B, H, W, 3]` in -1..1, as `transforms.network_input` makes them; of at least `SMALLEST_SIDE`
            pixels a side.
        """
        with jax.default_matmul_precision("highest"):
            x = self.max_pool(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
            depth_64 = _mean(x)
            x = self.max_pool(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
            depth_192 = _mean(x)
            x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
            x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
            depth_768 = _mean(x)
            pool = _mean(self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))))
            without_bias = pool @ self.fc.kernel[...]
            return InceptionOutput(depth_64, depth_192, depth_768, pool, without_bias, self.fc(pool))


def _along_row(in_channels: int, out_channels: int, length: int, rngs: nnx.Rngs) -> BasicConv2d:
    return BasicConv2d(in_channels, out_channels, (1, length), rngs, padding=(0, length // 2))


def _along_column(in_channels: int, out_channels: int, length: int, rngs: nnx.Rngs) -> BasicConv2d:
    return BasicConv2d(in_channels, out_channels, (length, 1), rngs, padding=(length // 2, 0))


def _beside(*branches: jax.Array) -> jax.Array:
    return jnp.concatenate(branches, axis=-1)


def _mean(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=(1, 2))
