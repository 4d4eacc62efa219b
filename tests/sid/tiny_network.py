"""A network of a few hundred parameters as `sid_jax.sid.Networks` wants it: images, time, text, pooled text."""

import jax
import jax.numpy as jnp
import numpy as np

CHANNELS, HIDDEN, TEXT, VOCABULARY, LENGTH = 3, 8, 6, 11, 4
FREQUENCIES = np.array([1e-3, 3e-3, 1e-2, 3e-2])


def init(seed: int) -> dict[str, np.ndarray]:
    """Parameters by name; convolutions are HWIO, matrices [in, out]."""
    rng = np.random.default_rng(seed)
    shapes = {
        "conv_in": (3, 3, CHANNELS, HIDDEN),
        "time": (2 * len(FREQUENCIES), HIDDEN),
        "text": (TEXT, HIDDEN),
        "pooled": (TEXT, HIDDEN),
        "conv_mid": (3, 3, HIDDEN, HIDDEN),
        "conv_out": (3, 3, HIDDEN, CHANNELS),
        "bias_out": (CHANNELS,),
    }
    return {
        name: (rng.normal(size=shape) / np.sqrt(max(np.prod(shape[:-1]), 1))).astype(np.float32)
        for name, shape in shapes.items()
    }


def init_text(seed: int) -> np.ndarray:
    """The text encoder: one vector for each token of the vocabulary."""
    return np.random.default_rng(seed).normal(size=(VOCABULARY, TEXT)).astype(np.float32)


def encode(table, tokens):
    text = jnp.asarray(table)[tokens]
    return {"text": text, "pooled": text.max(axis=1)}


def denoiser(params, x, t, cond, dropout_key=None):
    return discriminator(params, x, t, cond, dropout_key)[0]


def discriminator(params, x, t, cond, dropout_key=None):
    """The skip connection keeps the x0-prediction near t = 999, where a is small, in the range of images. The logits
    are the channel mean of the features before the last convolution."""
    del dropout_key
    angles = t[:, None] * FREQUENCIES
    time = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1).astype(x.dtype)
    embedding = time @ params["time"] + cond["text"].mean(axis=1) @ params["text"] + cond["pooled"] @ params["pooled"]
    embedding = embedding[:, None, None, :]
    h = _conv(x, params["conv_in"])
    h = jax.nn.silu(h * (1 + embedding) + embedding)
    h = h + jax.nn.silu(_conv(h, params["conv_mid"]))
    return x + 0.3 * _conv(h, params["conv_out"]) + params["bias_out"], h.mean(axis=-1)


def _conv(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
