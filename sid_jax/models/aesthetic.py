"""The linear head of the aesthetic score, version 2 (Schuhmann et al. 2022, sac+logos+ava1-l14-linearMSE)."""

import itertools

import jax
from flax import nnx

_WIDTHS = {0: 1024, 2: 128, 4: 64, 6: 16, 7: 1}  # by the names of the layers; the others are dropout


class AestheticPredictor(nnx.Module):
    """Linear layers without activations: CLIP L/14's embedding of an image to how much people like it, 1 to 10.

    Args:
      width: of the embedding, which is of length 1.
      rngs: for initial parameters.
    """

    def __init__(self, width: int = 768, *, rngs: nnx.Rngs) -> None:
        pairs = itertools.pairwise((width, *_WIDTHS.values()))
        self.layers = nnx.Dict(
            {str(name): nnx.Linear(*pair, rngs=rngs) for name, pair in zip(_WIDTHS, pairs, strict=True)}
        )

    def __call__(self, embeddings: jax.Array) -> jax.Array:
        """`[B, width]` -> `[B]`."""
        for name in _WIDTHS:
            embeddings = self.layers[str(name)](embeddings)
        return embeddings[:, 0]
