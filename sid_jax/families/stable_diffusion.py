"""Stable Diffusion 1.x, 2.x and XL: the parts of a pipeline, and the teacher that they make."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sid_jax.errors import UserError, user_errors_from
from sid_jax.families import diffusers_export
from sid_jax.families.pipeline import KINDS, Pipeline
from sid_jax.families.schedulers import process_of
from sid_jax.formats.bundle import Bundle
from sid_jax.formats.diffusers_folder import INDEX
from sid_jax.size import Resolution, size_of
from sid_jax.teachers import component_of
from sid_jax.teachers.conditions import PromptConditions
from sid_jax.teachers.samplers.ddim import DDIM
from sid_jax.teachers.space import LatentSpace
from sid_jax.teachers.teacher import Sampler, Teacher

Cond = dict[str, Any]

STEPS, GUIDANCE = 50, 7.5
"""Of DDIM, as the pipelines have them by default."""


def open_pipeline(bundle: Bundle) -> Pipeline:
    """The parts of a source, their parameters abstract.

    Raises:
      UserError: one line that says what is wrong, which file, and what to do.
    """
    kind = KINDS[bundle.kind]
    scheduler, scheduler_at = _scheduler_config(bundle)
    pipeline = Pipeline(
        unet=component_of(bundle, "unet", "UNet2DConditionModel"),
        vae=component_of(bundle, "vae", "AutoencoderKL"),
        text_encoders=tuple(component_of(bundle, *part) for part in kind.text_encoders.items()),
        tokenizers=tuple(bundle.tokenizer(name) for name in kind.tokenizers),
        scheduler_config=scheduler,
        model_index=bundle.config(INDEX),
        folder=bundle.folder,
        scheduler_at=scheduler_at,
    )
    _check_widths(pipeline, bundle.config_at("unet"))
    return pipeline


def teacher_of(pipeline: Pipeline) -> Teacher:
    """The teacher that a pipeline is.

    Raises:
      UserError: its scheduler describes no process that can be distilled.
    """
    with user_errors_from(pipeline.scheduler_at):
        process = process_of(pipeline.scheduler_config)
    unet, kind = pipeline.unet.config, pipeline.kind
    levels = len(unet.block_out_channels)
    zero_empty = pipeline.model_index.get("force_zeros_for_empty_prompt", True)
    folders = [pipeline.folder / name for name in kind.tokenizers] if pipeline.folder else []
    conditions = PromptConditions(
        pipeline.text_encoders,
        pipeline.tokenizers,
        combine=functools.partial(combine_text, zero_empty=bool(zero_empty)),
        facts=(pipeline.model_index["_class_name"], pipeline.model_index.get("force_zeros_for_empty_prompt")),
        files=tuple(file for folder in folders for file in sorted(folder.iterdir()) if file.is_file()),
    )

    def sampler(steps: int | None = None, guidance: float | None = None) -> Sampler:
        return DDIM(process, STEPS if steps is None else steps, GUIDANCE if guidance is None else guidance)

    return Teacher(
        denoiser=pipeline.unet,
        process=process,
        conditions=conditions,
        space=LatentSpace(pipeline.vae, 2 ** (levels - 1), unet.sample_size or 64),
        sampler=sampler,
        write=functools.partial(diffusers_export.write_student, pipeline),
    )


def open_teacher(bundle: Bundle) -> Teacher:
    """The teacher in a source."""
    return teacher_of(open_pipeline(bundle))


def combine_text(
    outputs: list[Any], is_empty: Callable[[], jax.Array], resolution: Resolution, *, zero_empty: bool
) -> Cond:
    """The UNet's conditioning from what the text encoders say; pure, to be called within jit.

    With one text encoder, its last hidden state. With two (SDXL, Podell et al. 2023), the last but one hidden states
    of both side by side, the pooled embedding of the second, and the image's sizes and crop.

    Args:
      outputs: of the text encoders, `CLIPTextOutput`.
      is_empty: which prompts are empty, `[B]` bool.
      resolution: of the images.
      zero_empty: with two encoders, whether an empty prompt is encoded as zeros, as SDXL was trained.

    Returns:
      `encoder_hidden_states` `[B, L, D]`, and for SDXL `added_cond_kwargs` of `text_embeds` `[B, P]` and `time_ids`
      `[B, 6]`.
    """
    if len(outputs) == 1:
        return {"encoder_hidden_states": outputs[0].last_hidden_state}
    context = jnp.concatenate([output.hidden_states[-2] for output in outputs], axis=-1)
    pooled = outputs[1].pooled
    if zero_empty:
        empty = is_empty()
        context = jnp.where(empty[:, None, None], 0, context)
        pooled = jnp.where(empty[:, None], 0, pooled)
    height, width = size_of(resolution)
    sizes = jnp.array([height, width, 0, 0, height, width], jnp.float32)
    time_ids = jnp.tile(sizes, (context.shape[0], 1))
    return {
        "encoder_hidden_states": context,
        "added_cond_kwargs": {"text_embeds": pooled, "time_ids": time_ids},
    }


def _scheduler_config(bundle: Bundle) -> tuple[dict[str, Any], str]:
    """The scheduler that the networks were trained with, and where it is from; an export keeps that of its teacher."""
    config, at = bundle.config("scheduler"), bundle.config_at("scheduler")
    if bundle.about.get("teacher_scheduler") is not None:
        config, at = bundle.about["teacher_scheduler"], f"{bundle.folder}, teacher_scheduler of what sid_jax wrote"
    if not isinstance(config, dict):
        raise UserError(f"{at}: expected a JSON object, found {type(config).__name__}")
    if not isinstance(config.get("_class_name"), str):
        raise UserError(f"{at}: _class_name is {config.get('_class_name')!r}; the name of a scheduler is needed")
    return config, at


def _check_widths(pipeline: Pipeline, file: str) -> None:
    unet, texts = pipeline.unet.config, [component.config for component in pipeline.text_encoders]
    width = sum(text.hidden_size for text in texts)
    if unet.cross_attention_dim != width:
        raise UserError(f"{file}: cross_attention_dim is {unet.cross_attention_dim}, but the text is {width} wide")
    latent = pipeline.vae.config.latent_channels
    if unet.in_channels != latent or unet.out_channels != latent:
        found = f"{unet.in_channels} and {unet.out_channels}"
        raise UserError(f"{file}: in_channels and out_channels are {found}, but latents have {latent} channels")
    if (len(texts) == 2) != (unet.addition_embed_type == "text_time"):
        raise UserError(f"{file}: addition_embed_type {unet.addition_embed_type!r} with {len(texts)} text encoders")
    if len(texts) == 2:
        expected = texts[1].projection_dim + 6 * unet.addition_time_embed_dim
        found = unet.projection_class_embeddings_input_dim
        if found != expected:
            raise UserError(f"{file}: projection_class_embeddings_input_dim is {found}; the text gives {expected}")
