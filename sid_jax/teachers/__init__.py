"""Teachers: a diffusers folder or hub id to networks and their parameters, and back."""

from sid_jax.teachers.component import Component, build
from sid_jax.teachers.convert import from_params, layout, to_params
from sid_jax.teachers.folder import PARTS, Teacher, load_teacher

__all__ = ["PARTS", "Component", "Teacher", "build", "from_params", "layout", "load_teacher", "to_params"]
