"""Network configurations, read from the `config.json` that diffusers and transformers write.

Every field of the file is accounted for: it shapes the network, or it must have the one value that the network here
implements (`_REQUIRED`), or it has no part in the forward pass (`_INERT`). Anything else is an error that names the
field, so that no network is built that differs in silence from what the file describes.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Self, get_args


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list_of(value: Any, is_element: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(map(is_element, value))


_CHECKS: dict[Any, Callable[[Any], bool]] = {
    int: _is_int,
    float: lambda value: _is_int(value) or isinstance(value, float),
    bool: lambda value: isinstance(value, bool),
    str: lambda value: isinstance(value, str),
    tuple[int, ...]: lambda value: _is_list_of(value, _is_int),
    tuple[str, ...]: lambda value: _is_list_of(value, lambda element: isinstance(element, str)),
}
"""The types that a field may have, alone or in a union, and whether a value of a JSON file is of that type."""


def _check_types(name: str, field: dataclasses.Field, value: Any) -> Any:
    """Returns `value` in the type of `field` (lists become tuples); ValueError where JSON holds another type."""
    options = [field.type] if field.type in _CHECKS else list(get_args(field.type))
    for option in options:
        if option is type(None):
            if value is None:
                return None
        elif _CHECKS[option](value):
            return tuple(value) if isinstance(value, list) else value
    expected = " or ".join("null" if o is type(None) else str(getattr(o, "__name__", o)) for o in options)
    raise ValueError(f"{name}: field {field.name!r} must be of type {expected}, found {value!r}")


@dataclasses.dataclass(frozen=True)
class JsonConfig(abc.ABC):
    """Reading a configuration from a JSON object; the subclasses are frozen dataclasses."""

    _REQUIRED: ClassVar[dict[str, tuple[Any, ...]]] = {}
    _INERT: ClassVar[frozenset[str]] = frozenset()

    @property
    @abc.abstractmethod
    def num_layers(self) -> int:
        """How often the layers that repeat do so, added up. Readers limit it, since each layer is a Python object."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The configuration that a JSON object describes.

        Args:
          values: the object. Fields that are absent take diffusers' own defaults.

        Raises:
          ValueError: with one line that names the field: an unknown field, an ill-typed one, or a value that is not
            implemented.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        chosen = {}
        for key, value in values.items():
            if key in fields:
                chosen[key] = _check_types(cls.__name__, fields[key], value)
            elif key in cls._REQUIRED:
                allowed = cls._REQUIRED[key]
                if value not in allowed or isinstance(value, bool) not in {isinstance(a, bool) for a in allowed}:
                    options = " or ".join(map(repr, allowed))
                    raise ValueError(f"{cls.__name__}: field {key!r} is {value!r}; only {options} is supported")
            elif not key.startswith("_") and key not in cls._INERT:
                raise ValueError(f"{cls.__name__}: field {key!r} (value {value!r}) is not supported")
        return cls(**chosen)

    def _require(self, condition: bool, field: str, reason: str) -> None:
        if not condition:
            raise ValueError(f"{type(self).__name__}: field {field!r} is {getattr(self, field)!r}; {reason}")

    def _require_positive(self, *fields: str) -> None:
        for field in fields:
            value = getattr(self, field)
            smallest = min(value) if isinstance(value, tuple) else value
            self._require(smallest > 0, field, "it must be positive")
