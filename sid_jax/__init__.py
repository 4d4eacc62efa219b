"""Score identity Distillation (SiD) in JAX/Flax: few-step generators from pretrained diffusion models.

The verbs of `sid_jax.api` are here too; JAX and the rest are imported when the first is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sid_jax.api import UserError, distill, export, measure, open_student, open_teacher

__version__ = "0.1.0"
__all__ = ["UserError", "distill", "export", "measure", "open_student", "open_teacher"]


def __getattr__(name: str) -> Any:
    """A verb; or the schema of settings. `export` is also the module of a command, which can be called."""
    if name in ("config", "export"):
        return importlib.import_module(f"sid_jax.{name}")
    if name in __all__:
        return getattr(importlib.import_module("sid_jax.api"), name)
    raise AttributeError(f"module 'sid_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "config"})
