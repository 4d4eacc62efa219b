"""One network of a pipeline: what its config says, its graph, and its parameters, in files or in memory."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sid_jax import models
from sid_jax.errors import UserError
from sid_jax.formats.safetensors_files import WeightFiles, open_weights
from sid_jax.formats.state_dict import Place, Stored, from_params, layout, match, to_params
from sid_jax.models.registry import NETWORKS
from sid_jax.runtime.storage.json_files import read_json

_MOST_LAYERS = 1000  # SDXL has 70 transformer blocks; beyond this a config is damaged, or an attack


@dataclasses.dataclass(frozen=True, eq=False)
class Component:
    """A network of a pipeline; `nnx.merge(graphdef, params)` runs it.

    class_name: its class in diffusers or transformers, a key of `NETWORKS`.
    config_json: its `config.json`, as it came.
    config: the same, parsed and checked.
    graphdef: the network without parameters.
    params: arrays; `jax.ShapeDtypeStruct`s before `load`.
    folder, variant: where its files are; None for a network that was made here.
    """

    class_name: str
    config_json: dict[str, Any]
    config: Any
    graphdef: nnx.GraphDef
    params: nnx.State
    folder: Path | None = None
    variant: str = ""

    @property
    def loaded(self) -> bool:
        """Whether `params` holds arrays."""
        return all(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(self.params))

    @property
    def module(self) -> nnx.Module:
        """The network, concrete or abstract as `params` is."""
        return nnx.merge(self.graphdef, self.params)

    def load(self, dtype: jax.typing.DTypeLike | None = jnp.float32, place: Place | None = None) -> Self:
        """The same with parameters read from the files: one tensor at a time, none before all shapes are checked.

        Args:
          dtype: type to store parameters in; None: as the file has them.
          place: `place(path, array) -> jax.Array` puts an array where it belongs (into its shards, say); `path` is
            that of the leaf in `params`. By default `jnp.asarray`.

        Raises:
          UserError: a file is missing, damaged, or not that of the network of `config_json`.
        """
        weights = self.weights()
        where = str(weights.where)
        params = to_params(self.module, weights.stored, weights.tensors(), where=where, dtype=dtype, place=place)
        return self.with_params(params)

    def weights(self) -> WeightFiles:
        """The files of its parameters. Raises UserError where one is missing or damaged."""
        return open_weights(self.folder, NETWORKS[self.class_name].stem, self.variant)

    def with_params(self, params: nnx.State) -> Self:
        """The same with other parameters."""
        return dataclasses.replace(self, params=params)

    def rebuild(self, **options) -> Self:
        """The same with other options of the network's constructor, such as `dtype` to compute in."""
        graphdef, _ = nnx.split(_abstract_module(self.class_name, self.config, options))
        return dataclasses.replace(self, graphdef=graphdef)

    def state_dict(self) -> tuple[dict[str, Stored], Iterator[tuple[str, np.ndarray]]]:
        """The tensors as diffusers names them now, from the files where there are some, else from `params`.

        Returns:
          What there is, and an iterator over pairs of name and array in the same order.
        """
        if self.folder is None:
            slots, leaves = layout(self.module), dict(nnx.to_flat_state(self.params))
            stored = {name: Stored(slot.shape, str(leaves[slot.path].dtype)) for name, slot in slots.items()}
            return stored, from_params(self.module, self.params)
        weights = self.weights()
        slots = layout(self.module)
        matched = match(slots, weights.stored, str(weights.where))
        names = {slot.path: name for name, slot in slots.items()}
        stored = {names[slot.path]: Stored(slot.shape, weights.stored[old].dtype) for old, slot in matched.items()}
        tensors = (
            (names[matched[old].path], array.reshape(matched[old].shape))
            for old, array in weights.tensors()
            if old in matched
        )
        return stored, tensors


def build(class_name: str, config_json: dict[str, Any], *, where: str = "config.json", **options) -> Component:
    """A network from its configuration, its parameters abstract.

    Args:
      class_name: its class in diffusers or transformers.
      config_json: fields of its `config.json`.
      where: what to call the configuration in errors.
      **options: for the constructor: `dtype` to compute in, `param_dtype` to store in.

    Raises:
      UserError: no such class, or a field that is unknown, of another type, or not supported.
    """
    if class_name not in NETWORKS:
        raise UserError(f"{where}: networks of class {class_name} are not supported ({', '.join(NETWORKS)} are)")
    try:
        config = NETWORKS[class_name].config.from_dict(config_json)
        _check_depth(config)
        graphdef, params = nnx.split(_abstract_module(class_name, config, options))
    except (ValueError, OverflowError) as error:
        raise UserError(f"{where}: {str(error)[:500]}") from error
    return Component(class_name, config_json, config, graphdef, params)


def open_component(folder: Path, class_name: str, *, variant: str = "", **options) -> Component:
    """The network in `folder`, of which only `config.json` is read here; `load` reads its parameters.

    Args:
      folder: a subfolder of a pipeline, or what `save_pretrained` of the one network wrote.
      class_name: its class in diffusers or transformers.
      variant: of the weights; "fp16" reads `*.fp16.safetensors`.
      **options: for the constructor: `dtype` to compute in, `param_dtype` that abstract parameters have.

    Raises:
      UserError: the configuration is missing or not supported.
    """
    file = folder / "config.json"
    component = build(class_name, read_json(file), where=str(file), **options)
    return dataclasses.replace(component, folder=folder, variant=variant)


class _OneKey:
    """Stands in for `nnx.Rngs` where no value matters: tracing its counter takes 90 s for SDXL's UNet, this 2 s."""

    def params(self) -> jax.Array:
        return jax.random.key(0)


def _abstract_module(class_name: str, config: Any, options: dict[str, Any]) -> nnx.Module:
    return nnx.eval_shape(lambda: NETWORKS[class_name].module(config, rngs=_OneKey(), **options))


def _check_depth(config: Any) -> None:
    # Abstract parameters of any size cost nothing, but each layer is a Python object.
    if isinstance(config, models.UNetConfig):
        levels = zip(config.layers_per_block, config.transformer_layers_per_block, strict=True)
        layers = sum(resnets * blocks for resnets, blocks in levels)
    elif isinstance(config, models.AutoencoderKLConfig):
        layers = config.layers_per_block * len(config.block_out_channels)
    else:
        layers = config.num_hidden_layers
    if layers > _MOST_LAYERS:
        raise ValueError(f"the network would have {layers} layers; more than {_MOST_LAYERS} are not supported")
