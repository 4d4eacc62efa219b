"""One network of a teacher: what its config says, its graph, and its parameters, in files or in memory."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sid_jax.errors import UserError, user_errors_from
from sid_jax.formats.bundle import Bundle, Tensors
from sid_jax.formats.fingerprint import digest_of
from sid_jax.formats.safetensors_files import open_weights
from sid_jax.formats.state_dict import (
    ParamPath,
    Place,
    Slot,
    Stored,
    check_constant,
    from_params,
    layout,
    match,
    to_params,
)
from sid_jax.models.layers.constant import Constant
from sid_jax.models.registry import NETWORK_TYPES
from sid_jax.runtime.run.progress import following
from sid_jax.runtime.storage.json_files import read_json

_MOST_LAYERS = 1000  # SDXL has 70 transformer blocks; beyond this a config is damaged, or an attack
_MOST_PARAMETERS = 10**11  # SDXL's UNet has 2.6e9; of more a file may be sparse, and takes memory and no disk


@dataclasses.dataclass(frozen=True, eq=False)
class Component:
    """A network of a teacher; `nnx.merge(graphdef, params, constants)` runs it.

    class_name: its class in diffusers, transformers or the published code, a key of `NETWORK_TYPES`.
    config_json: its configuration, as it came.
    config: the same, parsed and checked.
    graphdef: the network without parameters.
    params: arrays; `jax.ShapeDtypeStruct`s before `load`.
    constants: the same of what is neither trained nor averaged; most networks have none.
    open_weights: opens its files; None for a network that was made here.
    where: what error messages call it.
    matmul: how precisely it multiplies, as `jax.default_matmul_precision` has it; None: as JAX does by itself.
    """

    class_name: str
    config_json: dict[str, Any]
    config: Any
    graphdef: nnx.GraphDef[Any]
    params: nnx.State
    constants: nnx.State
    open_weights: Callable[[], Tensors] | None = None
    where: str = ""
    matmul: str | None = None

    @property
    def loaded(self) -> bool:
        """Whether `params` holds arrays."""
        return all(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(self.params))

    @property
    def module(self) -> nnx.Module:
        """The network, concrete or abstract as `params` is."""
        return nnx.merge(self.graphdef, self.params, self.constants)

    @property
    def whole(self) -> nnx.State:
        """Parameters and constants as one."""
        return nnx.merge_state(self.params, self.constants)

    @property
    def base(self) -> nnx.State:
        """What a trained tree is combined with (see `sid.Networks.combine`), as far as it is here."""
        return self.whole if self.loaded else self.constants

    def load(self, dtype: jax.typing.DTypeLike | None = jnp.float32, place: Place | None = None) -> Self:
        """The same with parameters read from the files: one tensor at a time, none before all shapes are checked.

        Args:
          dtype: type to store parameters in; None: as the file has them. Constants are float32.
          place: `place(path, array) -> jax.Array` puts an array where it belongs (into its shards, say); `path` is
            that of the leaf in `params`. By default `jnp.asarray`.

        Raises:
          UserError: a file is missing, damaged, or not that of the network of `config_json`.
        """
        weights = self.weights()
        module, where = self.module, str(weights.where)
        count = sum(math.prod(stored.shape) for stored in weights.stored.values())
        if count > _MOST_PARAMETERS:
            raise UserError(f"{where}: {count} parameters; networks of more than {_MOST_PARAMETERS} are not supported")
        tensors = following(weights.tensors(), count, f"reading {self.name}", "parameters", lambda read: read[1].size)
        state = to_params(module, weights.stored, tensors, where=where, dtype=dtype, place=place)
        params, constants = nnx.split_state(state, nnx.Not(Constant), Constant)
        return dataclasses.replace(self, params=params, constants=constants)

    def load_constants(self) -> Self:
        """The same with its constants read from the files; nothing is opened if it has none, or has them."""
        if not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(self.constants)):
            return self
        return dataclasses.replace(self, constants=self.load().constants)

    def weights(self) -> Tensors:
        """Its tensors in files. Raises UserError where one is missing or damaged, or there are no files."""
        if self.open_weights is None:
            raise UserError(
                f"{self.where or self.class_name}: its parameters are not here: name a folder that has them"
            )
        return self.open_weights()

    def digest(self) -> str:
        """What identifies the network: hexadecimal SHA-256 of its files."""
        digest = hashlib.sha256()
        for path in self.files():
            digest.update(digest_of(path))
        return digest.hexdigest()

    @property
    def name(self) -> str:
        """That of its folder; of a network that was made here, its class."""
        return Path(self.where).name or self.class_name

    def files(self) -> tuple[Path, ...]:
        """Its `config.json`, where there is one, and its files of weights."""
        config = Path(self.where, "config.json")
        return (*([config] if config.is_file() else []), *self.weights().files)

    def with_params(self, params: nnx.State) -> Self:
        """The same with other parameters."""
        return dataclasses.replace(self, params=params)

    def made_of(self, params: nnx.State) -> Self:
        """The same with other parameters, which are in no file."""
        return dataclasses.replace(self, params=params, open_weights=None)

    def rebuild(self, changes: Mapping[str, Any] | None = None, **options: Any) -> Self:
        """The same with other options of the network's constructor, such as `dtype` to compute in.

        Args:
          changes: fields of the configuration that differ, and that no parameter depends on, such as `dropout`.
          **options: for the constructor.

        Raises:
          UserError: the network has no such field, or not that value of it.
        """
        if changes:
            config_json = {**self.config_json, **changes}
            with user_errors_from(self.where or self.class_name):
                config = NETWORK_TYPES[self.class_name].config.from_dict(config_json)
            return dataclasses.replace(self, config_json=config_json, config=config).rebuild(**options)
        graphdef, *_ = _abstract(NETWORK_TYPES[self.class_name].module, self.config, tuple(options.items()))
        return dataclasses.replace(self, graphdef=graphdef)

    def state_dict(self) -> tuple[dict[str, Stored], Iterator[tuple[str, np.ndarray]]]:
        """The tensors as diffusers names them now, from the files where there are some, else from `params`.

        Returns:
          What there is, and an iterator over pairs of name and array in the same order.
        """
        slots = layout(self.module)
        if self.open_weights is None:
            leaves = dict(nnx.to_flat_state(self.whole))
            stored = {name: Stored(slot.shape, str(leaves[slot.path].dtype)) for name, slot in slots.items()}
            return stored, from_params(self.module, self.whole)
        weights = self.weights()
        matched = match(slots, weights.stored, str(weights.where))
        names = {slot.path: name for name, slot in slots.items()}
        stored = {names[slot.path]: Stored(slot.shape, weights.stored[old].dtype) for old, slot in matched.items()}
        return stored, self._renamed(weights, matched, names)

    def _renamed(
        self, weights: Tensors, matched: Mapping[str, Slot], names: Mapping[ParamPath, str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """The tensors of files under our names; of constants, those that the configuration determines are checked."""
        constants = dict(nnx.to_flat_state(self.constants))
        for old, array in weights.tensors():
            if old not in matched:
                continue
            slot = matched[old]
            if slot.path in constants:
                check_constant(old, constants[slot.path], array, str(weights.where))
            yield names[slot.path], array.reshape(slot.shape)


class WithoutNetworks:
    """Conditions or a space that take no network."""

    @property
    def parts(self) -> tuple[Component, ...]:
        """None."""
        return ()

    @property
    def files(self) -> tuple[Path, ...]:
        """None."""
        return ()

    def with_parts(self, parts: tuple[Component, ...]) -> Self:
        """The same: there are none."""
        del parts
        return self


def build(class_name: str, config_json: dict[str, Any], *, where: str = "config.json", **options: Any) -> Component:
    """A network from its configuration, its parameters abstract.

    Args:
      class_name: its class in diffusers, transformers or the published code.
      config_json: fields of its `config.json`.
      where: what to call the configuration in errors.
      **options: for the constructor: `dtype` to compute in, `param_dtype` to store in.

    Raises:
      UserError: no such class, or a field that is unknown, of another type, or not supported.
    """
    if class_name not in NETWORK_TYPES:
        raise UserError(f"{where}: networks of class {class_name} are not supported ({', '.join(NETWORK_TYPES)} are)")
    try:
        config = NETWORK_TYPES[class_name].config.from_dict(config_json)
        if config.num_layers > _MOST_LAYERS:
            raise ValueError(f"it would have {config.num_layers} layers; more than {_MOST_LAYERS} are not supported")
        graphdef, params, constants = _abstract(NETWORK_TYPES[class_name].module, config, tuple(options.items()))
    except (ValueError, OverflowError) as error:
        raise UserError(f"{where}: {str(error)[:500]}") from error
    return Component(class_name, config_json, config, graphdef, params, constants)


def component_of(bundle: Bundle, part: str, class_name: str) -> Component:
    """A network of a source, of which only the configuration is read here; `load` reads its parameters.

    Args:
      bundle: the source.
      part: its name there.
      class_name: its class in diffusers, transformers or the published code.

    Raises:
      UserError: the source has another class there, or the configuration is missing or not supported.
    """
    bundle.check_class(part, (class_name,))
    where = bundle.config_at(part)
    component = build(class_name, bundle.config(part), where=where)
    at = str(Path(where).parent)
    return dataclasses.replace(component, open_weights=lambda: bundle.weights(part), where=at)


def open_component(folder: Path, class_name: str, *, variant: str = "", **options: Any) -> Component:
    """The network in a folder of its own, as `save_pretrained` writes one; `load` reads its parameters.

    Args:
      folder: with `config.json` and safetensors files.
      class_name: its class in diffusers or transformers.
      variant: of the weights; "fp16" reads `*.fp16.safetensors`.
      **options: for the constructor: `dtype` to compute in, `param_dtype` that abstract parameters have.

    Raises:
      UserError: the configuration is missing or not supported.
    """
    file = folder / "config.json"
    component = build(class_name, read_json(file), where=str(file), **options)
    stem = NETWORK_TYPES[class_name].stem
    weights = open_weights
    return dataclasses.replace(component, open_weights=lambda: weights(folder, stem, variant), where=str(folder))


class _OneKey:
    """Stands in for `nnx.Rngs` where no value matters: tracing its counter takes 90 s for SDXL's UNet, this 2 s."""

    def params(self) -> jax.Array:
        return jax.random.key(0)


@functools.lru_cache(maxsize=32)
def _abstract(
    module_type: Callable[..., nnx.Module], config: Any, options: tuple[tuple[str, Any], ...]
) -> tuple[nnx.GraphDef[Any], nnx.State, nnx.State]:
    """Graph, parameters and constants of a network, without values. A start asks for each network several times."""
    module = nnx.eval_shape(lambda: module_type(config, rngs=_OneKey(), **dict(options)))
    graphdef, *states = nnx.split(module, nnx.Not(Constant), Constant)
    params, constants = states
    return graphdef, params, constants
