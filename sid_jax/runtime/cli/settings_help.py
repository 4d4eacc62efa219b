"""What `--help` says of settings: a line or two of each, wrapped at the width of the terminal."""

import textwrap
from collections.abc import Iterable
from types import UnionType
from typing import Any

from sid_jax.runtime.cli.config_file import SIZE
from sid_jax.runtime.cli.settings import Chapter, Setting, in_words

_KINDS = {int: "int", float: "number", bool: "true or false", tuple: "tuple", SIZE: "int or HEIGHTxWIDTH"}
_COLUMN = 34  # where meanings begin, beside the key; in a narrow terminal they begin in a line of their own
_NARROW = 80
_KEPT = "\u00a0"  # a space at which no line ends

_INTRODUCTION = (
    "--config.KEY=VALUE (or --config.KEY VALUE) replaces one setting of the config file, in the type of its default. "
    "The values that a setting takes, and its default, stand in parentheses; where none is a value, it is written none."
)


def listing(chapters: Iterable[Chapter], width: int) -> str:
    """All settings by chapter, in lines of at most `width` characters."""
    lines = ["settings:", *_wrapped(_INTRODUCTION, width, 2)]
    for chapter in chapters:
        lines += ["", *_wrapped(f"{chapter.title}:", width, 0)]
        for key, setting in chapter.settings.items():
            lines += _entry(key, setting, width)
        if chapter.defaults:
            others = (f"{key}{_KEPT}{_shown(value)}" for key, value in chapter.defaults.items())
            lines += _wrapped(f"Other defaults than above: {', '.join(others)}", width, 2)
    return "\n".join(lines)


def accepted(setting: Setting) -> str:
    """The values that a setting takes, in words; empty where it takes every text."""
    kind = _KINDS.get(setting.kind, "")
    if isinstance(setting.values, str):
        kind = f"{kind} in {setting.values}"
    elif setting.values and not isinstance(setting.values, UnionType):
        kind = in_words(setting.values)
    return f"{kind} or none" if setting.optional else kind


def _entry(key: str, setting: Setting, width: int) -> list[str]:
    default = "none" if setting.optional else _shown(setting.default)
    values = accepted(setting).replace(", ", f",{_KEPT}") if isinstance(setting.values, str) else accepted(setting)
    facts = "; ".join(filter(None, (values, f"default:{_KEPT if len(default) < 20 else ' '}{default}")))
    text = f"{setting.meaning} ({facts})".lstrip()
    if width < _NARROW or len(key) > _COLUMN - 4:
        return [f"  {key}", *_wrapped(text, width, 6 if width < _NARROW else _COLUMN)]
    first, *others = _wrapped(text, width, _COLUMN)
    return [f"  {key:<{_COLUMN - 2}}{first.lstrip()}", *others]


def _shown(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "empty" if value == "" else str(value)


def _wrapped(text: str, width: int, indent: int) -> list[str]:
    """Lines of a text, each behind so many spaces; words are not broken."""
    space = " " * indent
    lines = textwrap.wrap(
        text, width, initial_indent=space, subsequent_indent=space, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace(_KEPT, " ") for line in lines]
