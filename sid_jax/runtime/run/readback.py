"""What a checkpoint must have, noted when it is saved and compared with what is read back from its folder."""

import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from sid_jax.runtime.run import manifest
from sid_jax.runtime.run.state_item import StateHandler, StateRestore
from sid_jax.runtime.storage.json_files import loads
from sid_jax.runtime.storage.small_files import read_small_bytes

LARGEST_JSON = 256 << 20  # bytes; metrics of 20,000 updates without a line in the log are 6 MB

# Where Orbax has an item's JSON; the name `metrics` is one that it knows.
_FILES = {"data": "metadata", "config": "metadata", "metrics": "metrics"}


class Readback:
    """Names, shapes and types of all arrays of a state, the values of one array of each of its fields, and the JSON.

    Comparing all values would cost as much as saving them. The sums of all files, which the manifest has, are compared
    too, so that little is left that could be wrong: what Orbax has written in place of other values.

    Args:
      state: a pytree of arrays; its values are copied, as far as they are compared, since the state may be donated.
      items: the name of each JSON item to its value.
    """

    def __init__(self, state: Any, items: Mapping[str, Any]) -> None:
        self._shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), state)
        smallest: dict[Any, tuple[int, Any]] = {}  # field to the size and the name of its smallest array
        for name, leaf in ocp.tree.to_flat_dict(state).items():
            size = np.size(leaf)
            if size and (name[0] not in smallest or size < smallest[name[0]][0]):
                smallest[name[0]] = size, name
        chosen = {name for _, name in smallest.values()}
        leaves = ocp.tree.to_flat_dict(state)
        self._values = {name: _pieces(leaves[name]) for name in chosen}
        self._texts = {name: json.dumps(value) for name, value in items.items()}

    def check(self, checkpoint: epath.Path) -> None:
        """Reads a complete checkpoint as a reader does.

        One process calls this, in a thread of its own if need be: nothing of JAX's devices is used.

        Args:
          checkpoint: its folder.

        Raises:
          Exception: it can't be read, or is not what was saved.
        """
        manifest.verify(checkpoint)
        for item, text in self._texts.items():
            if json_text(checkpoint, item) != text:
                raise ValueError(f"its {item} is not what was saved")
        found = ocp.tree.to_flat_dict(StateHandler().metadata(checkpoint / "state").tree)
        for name, shape in ocp.tree.to_flat_dict(self._shapes).items():
            if name not in found:
                raise ValueError(f"its state lacks {'.'.join(name)}")
            if (tuple(found[name].shape), found[name].dtype) != (shape.shape, shape.dtype):
                raise ValueError(f"{'.'.join(name)} of its state has another shape or type")
        self._check_values(checkpoint)

    def _check_values(self, checkpoint: epath.Path) -> None:
        names = iter(ocp.tree.to_flat_dict(self._shapes))
        wanted = jax.tree.map(lambda shape: shape if next(names) in self._values else ocp.PLACEHOLDER, self._shapes)
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), self._shapes)
        read = StateHandler().restore(checkpoint / "state", args=StateRestore(wanted, restore_args=how))
        values = ocp.tree.to_flat_dict(read)
        for name, pieces in self._values.items():
            for index, expected in pieces:
                if np.asarray(values[name])[index].tobytes() != expected.tobytes():
                    raise ValueError(f"{'.'.join(name)} of its state is not what was saved")


def json_text(checkpoint: epath.Path, item: str) -> str:
    """The text of a JSON item of a checkpoint.

    Raises:
      Unreadable: it can't be read, or is larger than any that is written.
      UnicodeDecodeError: it is not UTF-8.
    """
    return read_small_bytes(checkpoint / item / _FILES[item], LARGEST_JSON).decode()


def json_object(checkpoint: epath.Path, item: str) -> dict[str, Any]:
    """A JSON item of a checkpoint.

    Raises:
      Unreadable: it can't be read.
      ValueError: it is no JSON object.
    """
    try:
        value = loads(json_text(checkpoint, item))
    except ValueError as error:
        raise ValueError(f"its {item} is not JSON ({' '.join(str(error).split())[:100]})") from None
    if not isinstance(value, dict):
        raise ValueError(f"its {item} is no JSON object")
    return value


def _pieces(leaf: Any) -> list[tuple[Any, np.ndarray]]:
    """Which parts of an array are on this process, as indices into it, and a copy of each."""
    if not isinstance(leaf, jax.Array):
        return [((), np.array(leaf))]
    return [(shard.index, np.array(shard.data)) for shard in leaf.addressable_shards]
