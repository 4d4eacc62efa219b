"""Finding out before a run whether its checkpoints can be written."""

import contextlib
import os

import jax
import numpy as np
from etils import epath

from sid_jax.errors import UserError
from sid_jax.runtime.devices import processes
from sid_jax.runtime.run.checkpoints import Checkpoints, SaveError
from sid_jax.runtime.run.saving_errors import one_line
from sid_jax.runtime.storage.files import absolute


def try_checkpoints(path: os.PathLike | str) -> None:
    """Saves a small checkpoint in a folder, reads it back and removes it. All processes call this together.

    Args:
      path: the folder of a run's checkpoints, local or gs://.

    Raises:
      UserError: that can't be done.
    """
    folder = absolute(path) / ".trial"
    _remove(folder)  # of a run that was killed
    try:
        trial = Checkpoints(folder)
        try:
            trial.save(0, {"numbers": _on_all_devices()}, {}, {})
            trial.wait()
        finally:
            trial.close()
    except (SaveError, OSError) as error:
        reason = one_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise UserError(f"checkpoints can't be written to {path}: {reason}") from error
    finally:
        _remove(folder)


def _remove(folder: epath.Path) -> None:
    if processes.is_first():
        with contextlib.suppress(OSError):
            folder.rmtree(missing_ok=True)
    processes.wait_for_all("a trial's folder is removed")


def _on_all_devices() -> jax.Array:
    """A number on each device, so that each process writes."""
    count = jax.device_count()
    split = jax.sharding.NamedSharding(jax.make_mesh((count,), ("all",)), jax.sharding.PartitionSpec("all"))
    return jax.make_array_from_callback((count,), split, lambda index: np.arange(count)[index])
