"""What a teacher is made of: networks with their parameters, and samplers."""

from sid_jax.teachers.component import Component, build, open_component

__all__ = ["Component", "build", "open_component"]
