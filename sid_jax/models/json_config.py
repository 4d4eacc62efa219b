"""Network configurations, read from the `config.json` that diffusers and transformers write.

Every field of the file is accounted for: it shapes the network, or it must have the one value that the network here
implements (`_REQUIRED`), or it has no part in the forward pass (`_INERT`). Anything else is an error that names the
field, so that a network is never built that differs in silence from what the file describes.
"""

import dataclasses
from typing import Any, ClassVar, Self


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_types(name: str, field: dataclasses.Field, value: Any) -> Any:
    """Returns `value` in the type of `field` (lists become tuples); ValueError where JSON holds another type."""
    checks = {
        int: _is_int,
        float: lambda v: _is_int(v) or isinstance(v, float),
        bool: lambda v: isinstance(v, bool),
        str: lambda v: isinstance(v, str),
        tuple[int, ...]: lambda v: isinstance(v, (list, tuple)) and bool(v) and all(map(_is_int, v)),
        tuple[str, ...]: lambda v: isinstance(v, (list, tuple)) and bool(v) and all(isinstance(s, str) for s in v),
    }
    options = [field.type] if field.type in checks else list(field.type.__args__)
    for option in options:
        if option is type(None):
            if value is None:
                return None
        elif checks[option](value):
            return tuple(value) if isinstance(value, list) else value
    expected = " or ".join("null" if o is type(None) else str(getattr(o, "__name__", o)) for o in options)
    raise ValueError(f"{name}: field {field.name!r} must be of type {expected}, found {value!r}")


class JsonConfig:
    """Reading a configuration from a JSON object; the subclasses are frozen dataclasses."""

    _REQUIRED: ClassVar[dict[str, tuple]] = {}
    _INERT: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The configuration that the JSON object `values` describes.

        Fields that are absent take diffusers' own defaults. Raises ValueError with one line that names the field for
        an unknown field, an ill-typed one, or a value that is not implemented.
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
