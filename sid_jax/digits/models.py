"""Which teachers of digits can be made, by the name that a config has for them."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from sid_jax.digits import pixels, pretrain
from sid_jax.digits.settings import ANY, EDM, STABLE_DIFFUSION
from sid_jax.errors import UserError
from sid_jax.runtime.cli.settings import Chapter, check_values, settings_in

MODELS = {"stable_diffusion": (pretrain, STABLE_DIFFUSION), "edm": (pixels, EDM)}
"""Modules with `default()`, every setting, and `pretrain(config, out)`; and the settings of each alone."""


def chapters() -> tuple[Chapter, ...]:
    """All settings of all models, as `--help` lists them."""
    return (ANY, *(chapter for _, chapter in MODELS.values()))


def schema_of(config: Mapping[str, Any]) -> ConfigDict:
    """Every setting of the model that a config names, with its default. Raises UserError for another model."""
    schema: ConfigDict = _model_of(config)[0].default()
    return schema


def make(config: ConfigDict, out: Path) -> None:
    """Trains the model that a config names, and its metric network, and writes them into `out`.

    Raises:
      UserError: there is no such model; the data or the folder can't be used, or a setting makes no network.
    """
    module, chapter = _model_of(config)
    check_values(config, settings_in((ANY, chapter)))
    module.pretrain(config, out)


def _model_of(config: Mapping[str, Any]) -> tuple[ModuleType, Chapter]:
    model = config.get("model", "stable_diffusion")
    if not isinstance(model, str) or model not in MODELS:
        raise UserError(f"config key model is {model!r:.80}: use one of {', '.join(MODELS)}")
    return MODELS[model]
