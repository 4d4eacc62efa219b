"""Which teachers of digits can be made, by the name that a config has for them."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from sid_jax.config import check_numbers
from sid_jax.digits import pixels, pretrain
from sid_jax.errors import UserError, user_errors_from
from sid_jax.sid import seed_words

MODELS = {"stable_diffusion": pretrain, "edm": pixels}
"""Modules with `default()`, every setting, and `pretrain(config, out)`."""


def schema_of(config: Mapping[str, Any]) -> ConfigDict:
    """Every setting of the model that a config names, with its default. Raises UserError for another model."""
    schema: ConfigDict = _module_of(config).default()
    return schema


def make(config: ConfigDict, out: Path) -> None:
    """Trains the model that a config names, and its metric network, and writes them into `out`.

    Raises:
      UserError: there is no such model; the data or the folder can't be used, or a setting makes no network.
    """
    model = _module_of(config)
    check_numbers(config)
    with user_errors_from("config"):
        seed_words(config.seed)
    model.pretrain(config, out)


def _module_of(config: Mapping[str, Any]) -> ModuleType:
    model = config.get("model", "stable_diffusion")
    if not isinstance(model, str) or model not in MODELS:
        raise UserError(f"config key model is {model!r:.80}: use one of {', '.join(MODELS)}")
    return MODELS[model]
