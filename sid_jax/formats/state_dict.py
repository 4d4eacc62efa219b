"""A network's PyTorch state dict to its Flax NNX parameters and back: one rule per type of layer.

The attributes of our modules carry the names that diffusers and transformers use, so the path of a parameter *is* its
name in the file; only the leaf's name and the order of its axes depend on the framework. A bare parameter, which a
module of ours holds without a layer (CLIP's class embedding), is in the file as it is here. Three things that published
files carry besides are understood when reading and never written: the attention names of old autoencoders, text
encoders without the `text_model.` prefix, and what is no parameter: `position_ids`, and how many batches a batch norm
has seen.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sid_jax.errors import UserError
from sid_jax.formats.finite import is_finite
from sid_jax.models.layers.constant import Constant

ParamPath = tuple[str | int, ...]
Place = Callable[[ParamPath, np.ndarray], jax.Array | np.ndarray]

# Layer type -> our leaf's name -> its name in a state dict, and the order of our axes there.
_RULES: dict[type[nnx.Module], dict[str, tuple[str, tuple[int, ...]]]] = {
    nnx.Conv: {"kernel": ("weight", (3, 2, 0, 1)), "bias": ("bias", (0,))},
    nnx.Linear: {"kernel": ("weight", (1, 0)), "bias": ("bias", (0,))},
    nnx.GroupNorm: {"scale": ("weight", (0,)), "bias": ("bias", (0,))},
    nnx.LayerNorm: {"scale": ("weight", (0,)), "bias": ("bias", (0,))},
    nnx.Embed: {"embedding": ("weight", (0, 1))},
}
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_NAME = re.compile(rf"\.({'|'.join(_OLD_ATTENTION)})\.(weight|bias)$")
_NO_PARAMETERS = ("position_ids", "num_batches_tracked")
_FLOATS = ("float32", "float16", "bfloat16")
_LISTED = 8


class Stored(NamedTuple):
    """What a file says of one of its tensors; `dtype` is a numpy name, or the file's own where numpy has none."""

    shape: tuple[int, ...]
    dtype: str


class Slot(NamedTuple):
    """The place of one tensor: its path in the parameters, its shape in a file, and `file = transpose(ours, axes)`."""

    path: ParamPath
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def to_file(self, array: np.ndarray) -> np.ndarray:
        """Our array, in the file's order of axes."""
        return np.transpose(array, self.axes)

    def from_file(self, array: np.ndarray) -> np.ndarray:
        """The file's array, in our order of axes (a 1x1 convolution's weight where we have a linear layer's: both)."""
        return np.transpose(array.reshape(self.shape), np.argsort(self.axes))


def layout(module: nnx.Module) -> dict[str, Slot]:
    """The state dict of `module`, concrete or abstract (`nnx.eval_shape`): names, in order, to their slots.

    Raises TypeError for a parameter of a layer type that has no rule.
    """
    layers = dict(nnx.iter_modules(module))
    slots = {}
    for key, leaf in nnx.to_flat_state(nnx.state(module)):
        path: ParamPath = tuple(part if isinstance(part, str | int) else str(part) for part in key)
        layer = layers.get(path[:-1])
        rules = next((rules for kind, rules in _RULES.items() if isinstance(layer, kind)), None)
        if isinstance(leaf, Constant) or (rules is None and _is_ours(layer)):  # in the file as it is, by its own name
            slots[".".join(map(str, path))] = Slot(path, tuple(leaf.shape), tuple(range(len(leaf.shape))))
            continue
        rule = rules.get(str(path[-1])) if rules else None
        if rule is None or len(rule[1]) != len(leaf.shape):
            raise TypeError(f"no rule converts parameter {path} of a {type(layer).__name__}")
        name, axes = rule
        shape = tuple(leaf.shape[axis] for axis in axes)
        slots[".".join(map(str, (*path[:-1], name)))] = Slot(path, shape, axes)
    return slots


def _is_ours(layer: Any) -> bool:
    """Whether a module is no layer of Flax, nor made from one: its own parameters are arrays that no layer holds."""
    if layer is None:
        return False
    from_flax = {kind for kind in type(layer).__mro__ if kind.__module__.split(".")[0] == "flax"}
    return from_flax <= set(nnx.Module.__mro__)


def match(
    slots: Mapping[str, Slot], found: Mapping[str, Stored], where: str, network: str = "the network of its config.json"
) -> dict[str, Slot]:
    """Pairs the tensors `found` in a file with the slots that they fill: their names in the file to slots.

    `where` is the file and `network` what it should fit, for the error message.

    Raises UserError with one line that lists every tensor that is missing, surplus, misshapen or not a float.
    """
    matched, filled, problems = {}, set(), []
    for name, stored in found.items():
        current = _current_name(name, slots)
        if current is None or current in filled:
            if not name.endswith(_NO_PARAMETERS):
                problems.append(f"{_shown(name)} {list(stored.shape)} is not expected")
            continue
        filled.add(current)
        slot = matched[name] = slots[current]
        if not _fits(slot, stored.shape):
            problems.append(f"{name} is {list(stored.shape)}, expected {list(slot.shape)}")
        if stored.dtype not in _FLOATS:
            problems.append(f"{name} is of type {stored.dtype}, expected {' or '.join(_FLOATS)}")
    problems += [f"{name} {list(slot.shape)} is missing" for name, slot in slots.items() if name not in filled]
    if problems:
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise UserError(f"{where} does not fit {network}: {'; '.join(problems[:_LISTED])}{more}")
    return matched


def to_params(
    module: nnx.Module,
    found: Mapping[str, Stored],
    tensors: Iterable[tuple[str, np.ndarray]],
    *,
    where: str,
    dtype: jax.typing.DTypeLike | None = None,
    place: Place | None = None,
    network: str = "the network of its config.json",
) -> nnx.State:
    """The parameters of `module`, from `tensors` of a state dict, of which one at a time is held.

    Args:
      module: the network, best abstract (`nnx.eval_shape`).
      found: what `tensors` will hold; checked before the first one is asked for.
      tensors: pairs of name and array, in any order.
      where: the file, for error messages.
      dtype: type to store parameters in; None: as they come.
      place: `place(path, array)` puts an array onto the devices; by default `jnp.asarray`.
      network: what the file should fit, for error messages.

    Returns:
      What `nnx.state(module)` is for a concrete module: merge it with `nnx.split(module)[0]`.

    Raises:
      UserError: the tensors are not those of the module, or have values that are too large for the type.
    """
    slots = match(layout(module), found, where, network)
    leaves = dict(nnx.to_flat_state(nnx.state(module)))
    for name, array in tensors:
        if name not in slots:
            continue
        slot = slots[name]
        leaf, array = leaves[slot.path], slot.from_file(array)
        if isinstance(leaf, Constant):
            leaves[slot.path] = leaf.replace(jnp.asarray(check_constant(name, leaf, array, where)))
            continue
        array = array if dtype is None else _cast(name, array, np.dtype(dtype), where)
        leaves[slot.path] = leaf.replace(place(slot.path, array) if place else jnp.asarray(array))
    return nnx.from_flat_state(leaves)


def from_params(module: nnx.Module, params: nnx.State) -> Iterator[tuple[str, np.ndarray]]:
    """The state dict of `module` with parameters `params`: pairs of name and array, fetched one at a time."""
    leaves = dict(nnx.to_flat_state(params))
    for name, slot in layout(module).items():
        yield name, slot.to_file(np.asarray(leaves[slot.path][...]))


def check_constant(name: str, leaf: Constant, array: np.ndarray, where: str) -> np.ndarray:
    """A constant in float32.

    Raises UserError where the configuration determines its value and the file has another.
    """
    array = array.astype(np.float32)
    if leaf.expected is not None:
        expected = np.frombuffer(leaf.expected, "<f4").reshape(array.shape)
        if not np.allclose(array, expected, rtol=leaf.tolerance, atol=1e-6):
            raise UserError(f"{where}: {name} is not what the network of its config.json has there")
    return array


def _cast(name: str, array: np.ndarray, dtype: np.dtype, where: str) -> np.ndarray:
    """The array in another type; UserError where values that were finite are too large for it."""
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if dtype != np.float32 and not is_finite(cast):
        raise UserError(f"{where}: {_shown(name)} has values that are too large for {dtype}")
    return cast


def _current_name(name: str, slots: Mapping[str, Slot]) -> str | None:
    old = _OLD_NAME.sub(lambda m: f".{_OLD_ATTENTION[m[1]]}.{m[2]}", name)
    return next((n for n in (name, f"text_model.{name}", old) if n in slots), None)


def _shown(name: str) -> str:
    return name if name.isprintable() and len(name) <= 200 else repr(name[:200])


def _fits(slot: Slot, shape: tuple[int, ...]) -> bool:
    return shape == slot.shape or (len(slot.shape) == 2 and shape == (*slot.shape, 1, 1))
