"""Settings, each written once: its default, its meaning, and which values it takes.

What a config has, what `--help` says of it, and what is refused all come from one table:

SETTINGS = {
    "batch": Setting(512, "images an update, over all devices", "[1, 2^20]"),
    "sid.noise": Setting("fresh", "the noise of the steps after the first", ("fresh", "fixed", "ddim")),
    "sid.t_init": Setting(int, "time of the first step; none: the last time", "[0, 10^5]"),
}
"""

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType, UnionType
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict, config_dict

from sid_jax.errors import UserError
from sid_jax.runtime.cli.config_file import SIZE, flatten
from sid_jax.size import size_of


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of a setting.

    Attributes:
      default: its value where a config says nothing; a type (`int`, `float`) stands for none, or a value of this type.
      meaning: one line for `--help`.
      values: of numbers the interval that they must be in, "[0, 1)", where 10^9 and 1e9 are numbers; of texts those
        that are accepted; empty: all, where numbers must be finite. It holds for each element of a tuple. `SIZE`:
        those that are sizes of images, see `sid_jax.size`.
    """

    default: Any
    meaning: str
    values: str | Collection[str] | UnionType = ()

    @property
    def kind(self) -> type | UnionType:
        """The type of its values, but for none."""
        if isinstance(self.values, UnionType):
            return self.values
        return self.default if isinstance(self.default, type) else type(self.default)

    @property
    def optional(self) -> bool:
        """Whether it may be none, as it is by default."""
        return isinstance(self.default, type)

    def check(self, key: str, value: Any) -> None:
        """Checks a value of the right type. Raises UserError where it is none of those accepted; `key` is its name."""
        if isinstance(self.values, UnionType):
            _check_size(key, value)
            return
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(self.values, str):
                _check_number(key, each, self.values)
            elif self.values and each not in self.values:
                raise UserError(f"config key {key} is {each!r:.60}: use {in_words(self.values)}")
            elif isinstance(each, float):
                _check_number(key, each, "")


Settings = Mapping[str, Setting]
"""By dotted keys (`optimizer.eps`)."""


class Chapter(NamedTuple):
    """Settings under one title, as `--help` lists them.

    title: a few words.
    settings: those that are new here.
    defaults: key to value, of settings of chapters before, whose defaults are others here.
    """

    title: str
    settings: Settings
    defaults: Mapping[str, Any] = MappingProxyType({})


def settings_in(chapters: Iterable[Chapter]) -> dict[str, Setting]:
    """All settings of chapters that belong together, in their order."""
    found: dict[str, Setting] = {}
    for chapter in chapters:
        for key, default in chapter.defaults.items():
            found[key] = dataclasses.replace(found[key], default=default)
        found |= chapter.settings
    return found


def defaults_of(settings: Settings) -> ConfigDict:
    """A config with all settings, each with its default."""
    config = ConfigDict()
    for key, setting in settings.items():
        *groups, leaf = key.split(".")
        owner = config
        for name in groups:
            if name not in owner:
                owner[name] = ConfigDict()
            owner = owner[name]
        if setting.optional or setting.kind == SIZE:
            default = None if setting.optional else setting.default
            owner[leaf] = config_dict.FieldReference(default, field_type=setting.kind)
        else:
            owner[leaf] = setting.default
    return config


def check_values(config: ConfigDict, settings: Settings) -> None:
    """Checks that each setting has a value that it takes; a number that is no setting must be finite.

    Raises:
      UserError: one has not; the line names it, and what it takes.
    """
    unknown = Setting(None, "")
    for key, value in flatten(config).items():
        if value is not None:
            settings.get(key, unknown).check(key, value)


def in_words(names: Iterable[str]) -> str:
    """Names as a sentence has them: a, b or c."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _check_size(key: str, value: Any) -> None:
    try:
        size_of(value)
    except ValueError as error:
        raise UserError(f"config key {key} is {error}") from None


def _check_number(key: str, value: Any, interval: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not _is_in(value, interval or "(-inf, inf)"):
        noun = "an int" if isinstance(value, int) else "a number"
        wanted = f"{noun} in {interval}" if interval else "a finite number"
        raise UserError(f"config key {key} is {str(value)[:60]}: use {wanted}")


def _is_in(value: int | float, interval: str) -> bool:
    """Whether a number is in an interval. Floats are compared as float32, in which they are used: there 1e39 is
    infinite, and 0.99999999 is 1."""
    low, high = bounds(interval)
    if isinstance(value, float):
        with np.errstate(over="ignore"):
            value, low, high = (float(np.float32(number)) for number in (value, low, high))
        if not math.isfinite(value):
            return False
    above = low < value or (interval[0] == "[" and low == value)
    return above and (value < high or (interval[-1] == "]" and value == high))


def bounds(interval: str) -> tuple[int | float, int | float]:
    """The lower and the upper bound of an interval."""
    low, high = map(_bound, interval[1:-1].split(","))
    return low, high


def _bound(text: str) -> int | float:
    base, power, exponent = text.strip().partition("^")
    return int(base) ** int(exponent) if power else float(base)
