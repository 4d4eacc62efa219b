"""Whether a run can go on with a config: the settings that change the training must be those it was started with."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from sid_jax.errors import UserError
from sid_jax.runtime.cli import config_file

# What is written, how long the run is, and how and on how many devices it is computed, which a checkpoint does not
# depend on; and where the prompts are: that they are the same is found out from their text.
_FREE = ("images", "log_every", "sample_every", "max_bad_steps", "on_failed_save", "prompts", "remat", "scan")
_FREE_GROUPS = ("attention.", "evaluate.", "mesh.", "text.", "wandb.", "checkpoint_", "keep_")
_UNSET = "unset"

_log = logging.getLogger(__name__)


def training_differences(saved: Mapping[str, Any], current: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """The keys that differ and change the training, each with its saved and its current value.

    Args:
        saved: the config of a checkpoint, as JSON has it.
        current: the resolved config.
    """
    before = config_file.flatten(ConfigDict(saved))
    now = config_file.flatten(ConfigDict(json.loads(config_file.to_json(current))))
    keys = [key for key in sorted(before | now) if key not in _FREE and not key.startswith(_FREE_GROUPS)]
    values = {key: (before.get(key, _UNSET), now.get(key, _UNSET)) for key in keys}
    return {key: (old, new) for key, (old, new) in values.items() if old != new}


def check_same_training(saved: Mapping[str, Any], current: ConfigDict, workdir: str, force: bool = False) -> None:
    """Stops a run that would go on with other settings than it was started with, or, with `force`, reports it.

    Raises:
        UserError: `training_differences` has some.
    """
    differences = training_differences(saved, current)
    if not differences:
        return
    shown = ", ".join(
        f"{key} was {json.dumps(old)} and is {json.dumps(new)}" for key, (old, new) in differences.items()
    )
    if not force:
        raise UserError(
            f"{workdir} has a run with other settings: {shown}; set them back, or use another --workdir, "
            "or --resume=force to go on with them"
        )
    _log.warning("going on with other settings, as --resume=force asks: %s", shown)
