"""Prompts to what the UNet is conditioned on, as the diffusers pipelines make it."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sid_jax.errors import UserError
from sid_jax.families.stable_diffusion import Teacher

Ids = tuple[jax.Array, ...]
Cond = dict[str, jax.Array | dict[str, jax.Array]]


def tokenise(teacher: Teacher, prompts: Sequence[str]) -> tuple[np.ndarray, ...]:
    """Token ids `[B, L]` in int32 of `prompts`, one array for each text encoder; L is 77 for every published one.

    Longer prompts are cut, shorter ones padded. Raises UserError for an id that the text encoder does not have.
    """
    arrays = []
    for tokenizer, component in zip(teacher.tokenizers, teacher.text_encoders, strict=True):
        length = component.config.max_position_embeddings
        encoded = tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=min(tokenizer.model_max_length, length)
        )
        ids = np.asarray(encoded["input_ids"], np.int32)
        if ids.max(initial=0) >= component.config.vocab_size:
            place, size = component.folder or component.class_name, component.config.vocab_size
            raise UserError(f"{place}: token {ids.max()} of the tokenizer is beyond the text encoder's {size} words")
        arrays.append(ids)
    return tuple(arrays)


def encode(
    teacher: Teacher, params: Sequence[nnx.State], ids: Ids, *, resolution: int, zero_empty: bool | None = None
) -> Cond:
    """The UNet's conditioning, `unet(x, t, **encode(...))`; pure, to be called within jit.

    With one text encoder, its last hidden state. With two (SDXL, Podell et al. 2023), the last but one hidden states
    of both side by side, the pooled embedding of the second, and the image's sizes and crop.

    Args:
      teacher: which networks; its own parameters are not used.
      params: those of the text encoders.
      ids: tokens `[B, L]` for each text encoder.
      resolution: height and width of the images in pixels.
      zero_empty: with two encoders, whether an empty prompt is encoded as zeros, as SDXL was trained; None: what
        `force_zeros_for_empty_prompt` of the pipeline says.

    Returns:
      `encoder_hidden_states` `[B, L, D]`, and for SDXL `added_cond_kwargs` of `text_embeds` `[B, P]` and `time_ids`
      `[B, 6]`.
    """
    graphdefs = [component.graphdef for component in teacher.text_encoders]
    networks = map(nnx.merge, graphdefs, params)
    outputs = [network(tokens) for network, tokens in zip(networks, ids, strict=True)]
    if len(outputs) == 1:
        return {"encoder_hidden_states": outputs[0].last_hidden_state}
    context = jnp.concatenate([output.hidden_states[-2] for output in outputs], axis=-1)
    pooled = outputs[1].pooled
    if zero_empty is None:
        zero_empty = bool(teacher.model_index.get("force_zeros_for_empty_prompt", True))
    if zero_empty:
        empty = _is_empty(teacher, ids)
        context = jnp.where(empty[:, None, None], 0, context)
        pooled = jnp.where(empty[:, None], 0, pooled)
    sizes = jnp.array([resolution, resolution, 0, 0, resolution, resolution], jnp.float32)
    time_ids = jnp.tile(sizes, (context.shape[0], 1))
    return {
        "encoder_hidden_states": context,
        "added_cond_kwargs": {"text_embeds": pooled, "time_ids": time_ids},
    }


def fingerprint(teacher: Teacher) -> str:
    """Hexadecimal SHA-256 of what `tokenise` and `encode` depend on: the files of tokenizers and text encoders, and
    what the pipeline says of the empty prompt."""
    files = [file for name in teacher.pipeline.tokenizers for file in sorted((teacher.source / name).iterdir())]
    for component in teacher.text_encoders:
        files += [component.folder / "config.json", *component.weights().files]
    digests = [_digest(file) for file in files if file.is_file()]
    facts = [teacher.model_index["_class_name"], teacher.model_index.get("force_zeros_for_empty_prompt"), digests]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _is_empty(teacher: Teacher, ids: Ids) -> jax.Array:
    return jnp.all(ids[0] == tokenise(teacher, [""])[0], axis=-1)
