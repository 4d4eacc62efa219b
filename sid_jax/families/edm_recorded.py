"""Whether the network of a file computes what ours does: what its modules record of themselves, against ours.

Tensors of equal names and shapes do not prove equal arithmetic: heads, scales, groups and epsilons have none.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from flax import nnx

from sid_jax.errors import UserError
from sid_jax.models.edm import layers, resample
from sid_jax.teachers.component import Component

_POSITIONS = 10_000  # 1 / the lowest frequency of our positional embeddings


def check_recorded(component: Component, recorded: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Holds a network to what a file records; what the file does not say is not asked for.

    Args:
      component: the network, with abstract parameters.
      recorded: class and attributes of each of its modules, by path, as the file has them; empty where a format
        records nothing.
      where: the file, for error messages.

    Raises:
      UserError: something differs; it names the module, and both values.
    """
    if not recorded:
        return
    expected = dict(_expected(component))
    for path, said in recorded.items():
        for name, ours in expected.get(path, {}).items():
            theirs = said.get(name, ours)
            if not _is_equal(theirs, ours):
                at = f"{path}: " if path else ""
                raise UserError(f"{where}: {at}{name} is {theirs!r:.100}; the network here has {ours!r}")
        if said.get("class") in _CHECKED and path not in expected:
            raise UserError(f"{where}: {path} is a {said['class']}, which the network here has not")


_CHECKED = ("UNetBlock", "Conv2d", "GroupNorm", "PositionalEmbedding", "FourierEmbedding")


def _expected(component: Component) -> Iterator[tuple[str, dict[str, Any]]]:
    config = component.config
    own = ("img_resolution", "img_channels", "label_dim", "sigma_data")
    yield "", {"class": component.class_name, **{name: getattr(config, name) for name in own if hasattr(config, name)}}
    yield "model", {"class": config.model_type}
    for path, module in nnx.iter_modules(component.module):
        if expected := _of_module(module):
            yield ".".join(map(str, path)), expected


def _of_module(module: nnx.Module) -> dict[str, Any]:
    """What a file would record of a module of ours."""
    if isinstance(module, layers.UNetBlock):
        style = module.style
        return {
            "class": "UNetBlock",
            "in_channels": module.conv0.in_features,
            "out_channels": module.conv1.out_features,
            "emb_channels": style.embedding_channels,
            "num_heads": module.heads,
            "skip_scale": style.skip_scale,
            "adaptive_scale": style.adaptive,
        }
    if isinstance(module, layers.Conv2d):
        channels = {"in_channels": module.in_features, "out_channels": module.out_features}
        return {"class": "Conv2d", **channels, **_changes(module.change)}
    if isinstance(module, resample.Resample):
        return {"class": "Conv2d", **_changes(module.change)}
    if isinstance(module, nnx.GroupNorm):
        return {"class": "GroupNorm", "num_groups": module.num_groups, "eps": module.epsilon}
    if isinstance(module, layers.PositionalEmbedding):
        said = {"num_channels": module.channels, "max_positions": _POSITIONS, "endpoint": module.endpoint}
        return {"class": "PositionalEmbedding", **said}
    if isinstance(module, layers.FourierEmbedding):
        return {"class": "FourierEmbedding"}
    return {}


def _changes(change: str) -> dict[str, bool]:
    return {"up": change == "up", "down": change in ("down", "fused_down"), "fused_resample": change == "fused_down"}


def _is_equal(theirs: Any, ours: Any) -> bool:
    if isinstance(ours, str) or isinstance(theirs, str | None):
        return bool(theirs == ours)
    return math.isclose(theirs, ours, rel_tol=1e-6)
