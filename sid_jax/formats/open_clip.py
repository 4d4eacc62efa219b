"""CLIP as open_clip names its parameters, under transformers' names.

open_clip keeps queries, keys and values of a layer in one matrix, and its projections the other way round.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sid_jax.formats.bundle import Tensors
from sid_jax.formats.state_dict import Stored

_TOWERS = {"visual.": "vision_model.", "": "text_model."}
_NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
    **{
        f"{old}.{leaf}": f"{new}.{leaf}"
        for old, new in (
            ("visual.ln_pre", "vision_model.pre_layrnorm"),
            ("visual.ln_post", "vision_model.post_layernorm"),
            ("ln_final", "text_model.final_layer_norm"),
        )
        for leaf in ("weight", "bias")
    },
}
_TRANSPOSED = ("visual.proj", "text_projection")
_LAYER = re.compile(r"(visual\.|)transformer\.resblocks\.(\d{1,4})\.(.+)")
_IN_LAYER = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}  # fmt: skip
_FUSED = {"attn.in_proj_weight": "weight", "attn.in_proj_bias": "bias"}


@dataclass(frozen=True)
class OpenClipTensors:
    """The tensors of such a file as transformers has them; see `bundle.Tensors`. Unknown names stay as they are.

    source: the file.
    """

    source: Tensors

    @property
    def where(self) -> Path:
        """The file."""
        return self.source.where

    @property
    def files(self) -> tuple[Path, ...]:
        """The files."""
        return self.source.files

    @property
    def stored(self) -> Mapping[str, Stored]:
        """Of each tensor under its new name, its shape and type."""
        found = {}
        for name, stored in self.source.stored.items():
            for new, shape, _ in _parts(name, stored.shape):
                found[new] = Stored(shape, stored.dtype)
        return found

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """Pairs of new name and array."""
        for name, array in self.source.tensors():
            for new, _, part in _parts(name, array.shape):
                yield new, part(array)


def _parts(name: str, shape: tuple[int, ...]) -> list[tuple[str, tuple[int, ...], Callable[[np.ndarray], np.ndarray]]]:
    """What a tensor is made into: for each part its name, its shape, and how to take it."""
    if name in _TRANSPOSED and len(shape) == 2:
        return [(_NAMES[name], shape[::-1], np.transpose)]
    match = _LAYER.fullmatch(name)
    if not match:
        return [(_NAMES.get(name, name), shape, _whole)]
    layer = f"{_TOWERS[match[1]]}encoder.layers.{match[2]}"
    if (leaf := _FUSED.get(match[3])) and shape and shape[0] % 3 == 0:
        rows = shape[0] // 3
        return [
            (f"{layer}.self_attn.{part}_proj.{leaf}", (rows, *shape[1:]), _rows(i * rows, (i + 1) * rows))
            for i, part in enumerate("qkv")
        ]
    module, _, leaf = match[3].rpartition(".")
    return [(f"{layer}.{_IN_LAYER[module]}.{leaf}" if module in _IN_LAYER else name, shape, _whole)]


def _whole(array: np.ndarray) -> np.ndarray:
    return array


def _rows(first: int, last: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: array[first:last]
