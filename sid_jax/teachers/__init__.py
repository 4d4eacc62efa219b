"""Teachers: a diffusers folder or hub id to networks, tokenizers and parameters, and back."""

from sid_jax.teachers.component import Component, build, open_component
from sid_jax.teachers.convert import from_params, layout, to_params
from sid_jax.teachers.export import save_pipeline
from sid_jax.teachers.folder import PARTS, Teacher, load_teacher
from sid_jax.teachers.text import encode, fingerprint, tokenise

__all__ = [
    "PARTS",
    "Component",
    "Teacher",
    "build",
    "encode",
    "fingerprint",
    "from_params",
    "layout",
    "load_teacher",
    "open_component",
    "save_pipeline",
    "to_params",
    "tokenise",
]
