"""Flash attention (Dao et al. 2022, arXiv 2205.14135) by the kernels that come with JAX: cuDNN's and Pallas' for TPUs.

Each kernel has two functions here: one computes attention on the arrays of one device, the other says why the kernel
can't run a shape or a type.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

_LANES = 128  # splash's blocks are multiples of this
_BLOCK = 512  # positions, of queries and of keys, of a block of logits in the forward pass
_BACKWARD_BLOCK = 256  # of queries
_RESIDENT = 2**20  # bytes of keys, and of values, that a core holds for its pass over the queries backwards


class AttentionError(ValueError):
    """An implementation of attention was asked for that can't run here."""


def cudnn(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Attention on one GPU.

    Args:
      query: `[B, Lq, heads, D]`.
      key: `[B, Lk, heads, D]`.
      value: `[B, Lk, heads, D]`.

    Returns:
      `[B, Lq, heads, D]`.

    Raises:
      AttentionError: cuDNN is not installed.
    """
    try:
        return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
    except RuntimeError as error:
        if "cuDNN not found" not in str(error):
            raise
        raise AttentionError(
            "attention.implementation: cuDNN, which has attention for GPUs, is not installed: install it with JAX, "
            "\"jax[cuda12]\", or use 'xla'"
        ) from error


def cudnn_obstacle(length: int, key_length: int, head_size: int, dtype: np.dtype) -> str | None:
    """Why cuDNN can't run attention forward and backward on every GPU from Ampere on; None where it can.

    Args:
      length: Lq, of the queries.
      key_length: Lk, of the keys.
      head_size: D.
      dtype: of all three arrays.
    """
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"computes in bfloat16 and float16, not in {dtype}"
    if head_size % 8 or head_size > 128:
        return f"has head sizes that are multiples of 8 up to 128, not {head_size}"
    return None


def splash(query: jax.Array, key: jax.Array, value: jax.Array, *, interpret: bool = False) -> jax.Array:
    """Attention on one TPU.

    Args:
      query: `[B, Lq, heads, D]`.
      key: `[B, Lk, heads, D]`.
      value: `[B, Lk, heads, D]`.
      interpret: run the kernel on any device, slowly.

    Returns:
      `[B, Lq, heads, D]`.
    """
    batch, length, heads, head_size = query.shape
    resident = _RESIDENT // (-(-head_size // _LANES) * _LANES * key.dtype.itemsize)
    kernel = _splash_kernel(batch * heads, length, key.shape[1], resident, interpret)
    query *= head_size**-0.5  # the kernel does not scale
    # The kernel is given the heads of all samples as if one sample had them all. Under vmap, two samples would need
    # more memory than one.
    one_by_one = (jnp.swapaxes(x, 1, 2).reshape(-1, x.shape[1], x.shape[3]) for x in (query, key, value))
    return jnp.swapaxes(kernel(*one_by_one).reshape(batch, heads, length, head_size), 1, 2)


def splash_obstacle(length: int, key_length: int, head_size: int, dtype: np.dtype) -> str | None:
    """Why splash can't run attention forward and backward; None where it can. Arguments as `cudnn_obstacle`'s."""
    if length % _LANES or key_length % _LANES:
        return f"has lengths that are multiples of {_LANES}, not {length} positions of {key_length}"
    if head_size > 2 * _LANES:
        return f"has head sizes up to {2 * _LANES}, not {head_size}"
    return None


def _splash_kernel(
    heads: int, length: int, key_length: int, resident: int, interpret: bool
) -> Callable[..., jax.Array]:
    """The kernel for `heads` heads of all samples together, of which a core holds `resident` keys at a time."""
    queries, resident = _largest_block(length, _BLOCK), _largest_block(key_length, resident)
    keys = _largest_block(resident, _BLOCK)
    # The last axis is filled up to a tile. Positions fill it; 40 or 80 numbers of a head would leave most of it empty.
    layout = splash_attention_kernel.QKVLayout.SEQ_MINOR
    sizes = splash_attention_kernel.BlockSizes(
        block_q=queries,
        block_kv=keys,
        block_kv_compute=keys,
        block_q_dkv=_largest_block(length, _BACKWARD_BLOCK),
        block_kv_dkv=resident,
        block_kv_dkv_compute=keys,
        use_fused_bwd_kernel=True,
        q_layout=layout,
        k_layout=layout,
        v_layout=layout,
    )
    mask = splash_attention_mask.FullMask((length, key_length))
    return splash_attention_kernel.make_splash_mha(
        splash_attention_mask.MultiHeadMask([mask] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )


def _largest_block(length: int, most: int) -> int:
    """The largest multiple of 128 up to `most` that divides `length`, a multiple of 128."""
    return next(block for block in range(min(most, length), 0, -_LANES) if length % block == 0)
