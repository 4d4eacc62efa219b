"""What tests do with Stable Diffusion folders: open all parts of one, with parameters."""

import dataclasses

import jax.numpy as jnp

from sid_jax.families.open import FAMILIES, open_source, open_teacher
from sid_jax.families.stable_diffusion import open_pipeline

PARTS = ("unet", "vae", "text_encoders")


def load_pipeline(source, *, variant="", revision="main", dtype=jnp.float32, parts=PARTS):
    """The parts of a folder or hub id as a `Pipeline`, those of `parts` with parameters."""
    bundle = open_source(str(source), variant=variant, revision=revision)
    if bundle.kind not in list(FAMILIES):
        open_teacher(bundle)  # raises
    pipeline = open_pipeline(bundle)
    loaded = {name: getattr(pipeline, name) for name in parts}
    for name, part in loaded.items():
        several = isinstance(part, tuple)
        loaded[name] = tuple(each.load(dtype) for each in part) if several else part.load(dtype)
    return dataclasses.replace(pipeline, **loaded)


def load_teacher(source, *parts, **options):
    """The teacher of a folder, with parameters; of some of its parts where they are named."""
    return open_teacher(open_source(str(source), **options)).load(*(parts or ("denoiser", "conditions", "space")))
