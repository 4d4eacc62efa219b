"""Whether a run can go on with a config: the settings that change the training must be those it was started with."""

import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from sid_jax.errors import UserError
from sid_jax.runtime import config_file

# What is written, how long the run is, and how and on how many devices it is computed, which a checkpoint does not
# depend on.
_FREE = (
    "images",
    "log_every",
    "sample_every",
    "checkpoint_every",
    "keep_checkpoints",
    "max_bad_steps",
    "remat",
    "scan",
)
_FREE_GROUPS = ("attention.", "evaluate.", "mesh.", "text.")
_UNSET = "unset"


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


def check_same_training(saved: Mapping[str, Any], current: ConfigDict, workdir: str) -> None:
    """Stops a run that would go on with other settings than it was started with.

    Raises:
        UserError: `training_differences` has some.
    """
    differences = training_differences(saved, current)
    if differences:
        shown = ", ".join(
            f"{key} was {json.dumps(old)} and is {json.dumps(new)}" for key, (old, new) in differences.items()
        )
        raise UserError(f"{workdir} has a run with other settings: {shown}; set them back, or use another --workdir")
