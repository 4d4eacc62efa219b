"""Finding out before a run whether its checkpoints can be written."""

import contextlib
import os
import time

import jax
import numpy as np
from etils import epath

from sid_jax.errors import UserError
from sid_jax.runtime.devices import processes
from sid_jax.runtime.run.checkpoints import Checkpoints, SaveError
from sid_jax.runtime.run.saving_errors import one_line
from sid_jax.runtime.storage.files import absolute

_TRIES = 20  # at removing the folder, a tenth of a second apart


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
    """Removes the trial's folder, more than once if need be: Orbax removes what a failed save left in its own thread.

    Each of the two stops at a file that the other has just removed, with or without an error.
    """
    if processes.is_first():
        for _ in range(_TRIES):
            with contextlib.suppress(OSError):
                folder.rmtree(missing_ok=True)
                if not folder.exists():
                    break
            time.sleep(0.1)
    processes.wait_for_all("a trial's folder is removed")


def _on_all_devices() -> jax.Array:
    """A number on each device, so that each process writes."""
    count = jax.device_count()
    split = jax.sharding.NamedSharding(jax.make_mesh((count,), ("all",)), jax.sharding.PartitionSpec("all"))
    return jax.make_array_from_callback((count,), split, lambda index: np.arange(count)[index])
