"""The seam: what a teacher is made of, whatever its family."""

from sid_jax.teachers.component import Component, build, component_of, open_component

__all__ = ["Component", "build", "component_of", "open_component"]
