"""XLA's barrier, which keeps what a device holds at once small."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax

_Tree = TypeVar("_Tree")

_barrier: Callable[[Any], Any] = jax.lax.optimization_barrier


def barrier(arrays: _Tree) -> _Tree:
    """The same arrays, none of which is there before all are: what reads one of them waits for the others."""
    result: _Tree = _barrier(arrays)
    return result
