"""A run's config: read from a Python file, overridden from the command line, kept as JSON.

A *schema* is a ConfigDict with every key that a config may have, each with its default; `sid_jax.config.default()` is
the schema of `train`. A key is written with dots (`optimizer.fake_lr`), and has the type of the schema's value; a key
whose default is None (an ml_collections placeholder) also takes `none`.
"""

import copy
import difflib
import logging
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from absl import flags
from ml_collections import ConfigDict, config_flags

from sid_jax import assets
from sid_jax.errors import UserError, errors_in
from sid_jax.runtime.storage.json_files import loads, to_text
from sid_jax.runtime.storage.small_files import check_regular, read_small_bytes
from sid_jax.size import parse as parse_size

RENAMED = {"optimizer.lr": "optimizer.fake_lr", "optimizer.glr": "optimizer.generator_lr"}
"""Keys that once had another name, old to new. Config files, overrides and saved configs may have the old name."""

SIZE = int | tuple
"""The type of a key that is a size of images: one number, or (height, width); see `sid_jax.size`."""

_TYPE_NAMES = {
    int: "an int", float: "a float", bool: "true or false", str: "a string", tuple: "a tuple",
    SIZE: "an int or HEIGHTxWIDTH",
}  # fmt: skip

_log = logging.getLogger(__name__)


Schema: TypeAlias = ConfigDict | Callable[[Mapping[str, Any]], ConfigDict]
"""A schema, or a function that gives the schema of a config, which may differ from config to config."""


def load(path: str, schema: Schema, overrides: Iterable[tuple[str, str]] = ()) -> ConfigDict:
    """The locked config that `get_config()` of the file returns, with `overrides` of (key, text) applied in order.

    Args:
      path: of the file; or the name of one that comes with the package, such as `digits_1step`.
      schema: every key with its default.
      overrides: keys with dots, and what to set them to.

    Raises:
      UserError: the file does not exist, fails or has keys that the schema has not, or an override is wrong.
    """
    return resolved(_call_get_config(_existing_file(path)), schema, overrides, f"config {path}")


def resolved(config: ConfigDict, schema: Schema, overrides: Iterable[tuple[str, str]], name: str) -> ConfigDict:
    """The config itself, locked, with `overrides` of (key, text) applied in order.

    Args:
      config: with values of the schema's types.
      schema: every key that it must have.
      overrides: see `override`.
      name: of the config, with which the message of an error about its keys begins.

    Raises:
      UserError: it has keys that the schema has not, or lacks some; or an override is wrong.
    """
    schema = _schema_of(config, schema)
    _rename_keys(name, config, schema)
    _check_keys(name, config, schema)
    for key, text in overrides:
        override(config, schema, key, text)
    return config.lock()


def override(config: ConfigDict, schema: ConfigDict, key: str, text: str) -> None:
    """Sets `config`'s `key` to what `text` says, in the type of the key.

    An int is taken where a float is expected, but not the reverse; `none` is taken where the schema's default is None.

    Raises:
      UserError: the key is unknown or a group of keys, or the text is not of its type.
    """
    defaults = flatten(schema)
    given, key = key, current_name(key, defaults)
    if key not in defaults:
        raise UserError(_unknown_key(key, list(defaults)))
    if defaults[key] is None and text.lower() == "none":
        config.update_from_flattened_dict({key: None})
        return
    argument = f"--config.{key}={text}"
    parsed = flags.FlagValues()
    group, leaf = _group_of(schema, key)
    try:
        if group.get_type(leaf) == SIZE:
            config.update_from_flattened_dict({key: parse_size(text)})
            return
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=parsed, lock_config=False, sys_argv=["", argument]
        )
        parsed(["", argument])
        _check_elements(defaults[key], flatten(config)[key])
    except (flags.Error, TypeError, ValueError) as error:
        expected = _expected(schema, key, defaults[key])
        raise UserError(f"config key {given} takes {expected}, not {text!r}") from error


def current_name(key: str, known: Collection[str]) -> str:
    """The key by the name that it has among the `known` ones: its new name, where `key` is the old one of `RENAMED`."""
    new = RENAMED.get(key, key)
    return new if new in known and key not in known else key


def flatten(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config, or of nested mappings, under their dotted keys and in their order."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict | Mapping):
            flat |= {f"{name}.{key}": inner for key, inner in flatten(value).items()}
        else:
            flat[name] = value
    return flat


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON with sorted keys: equal configs give equal text."""
    return to_text(config.to_dict())


def from_json(text: str, schema: Schema) -> ConfigDict:
    """The locked config that `to_json` wrote, with the schema's types; a key that the text lacks has its default.

    Raises:
      UserError: the text is not JSON, or has a key or a type that the schema has not.
    """
    try:
        values = loads(text)
        saved = flatten(ConfigDict(values))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"the saved config is not a JSON object: {error}") from error
    schema = _schema_of(values, schema)
    config = copy.deepcopy(schema)
    defaults = flatten(schema)
    for given, value in saved.items():
        key = current_name(given, defaults)
        if key not in defaults:
            raise UserError(f"saved config: {_unknown_key(key, list(defaults))}")
        group, leaf = _group_of(schema, key)
        is_tuple = isinstance(defaults[key], tuple) or group.get_type(leaf) == SIZE
        typed = tuple(value) if is_tuple and isinstance(value, list) else value
        try:
            if isinstance(value, bool) and group.get_type(leaf) is not bool:
                raise TypeError("a truth value is no number")
            config.update_from_flattened_dict({key: typed})
        except (TypeError, OverflowError) as error:
            expected = _expected(schema, key, defaults[key])
            raise UserError(f"saved config: key {given} takes {expected}, not {repr(value)[:60]}") from error
    return config.lock()


def _schema_of(config: Mapping[str, Any], schema: Schema) -> ConfigDict:
    return schema if isinstance(schema, ConfigDict) else schema(config)


def _existing_file(path: str) -> Path:
    """The file that is named: by its path, or as one of those that come with the package, without their folder."""
    file, bundled = Path(path), assets.configs()
    if file.is_file():
        return file
    if file.name == path and (named := bundled / f"{file.name.removesuffix('.py')}.py").is_file():
        return named
    if file.is_dir():
        raise UserError(f"config {path} is a folder: name a file in it, one of {_names(file) or 'none'}")
    with errors_in("config"):
        check_regular(file)  # a pipe or a device in its place
    in_folder = {config.stem: str(config) for config in sorted(file.parent.glob("*.py"))}
    in_package = {config.stem: config.stem for config in sorted(bundled.glob("*.py"))}
    is_name = file.name == path and not file.suffix
    for known in (in_package, in_folder) if is_name else (in_folder or in_package,):
        close = _close(file.stem, known)
        if close:
            meant = " or ".join(known[name] for name in close)
            raise UserError(f"config {path} does not exist: did you mean {meant}?")
    if is_name or not in_folder:
        raise UserError(f"config {path} does not exist; with the package come {', '.join(in_package)}")
    raise UserError(f"config {path} does not exist; {file.parent} has {_names(file.parent)}")


def _close(stem: str, known: Collection[str]) -> list[str]:
    """The names that were perhaps meant: that one, those that begin so, or the most similar ones."""
    if stem in known:
        return [stem]
    return [name for name in known if name.startswith(stem)][:3] or difflib.get_close_matches(stem, known, n=3)


def _names(folder: Path) -> str:
    return ", ".join(sorted(file.name for file in folder.glob("*.py")))


def _call_get_config(file: Path) -> ConfigDict:
    namespace: dict[str, Any] = {"__name__": file.stem, "__file__": str(file)}
    # As Python does for a script, so that one config can start from another in the same folder.
    sys.path.insert(0, str(file.parent.resolve()))
    try:
        exec(compile(read_small_bytes(file), str(file), "exec"), namespace)
        get_config = namespace.get("get_config")
        if not callable(get_config):
            raise UserError(f"config {file} has no get_config() function")
        config = get_config()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"config {file} failed{_line_in(file, error)}: {_one_line(error)}") from error
    finally:
        sys.path.remove(str(file.parent.resolve()))
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"config {file}: get_config() returned {type(config).__name__}, not an ml_collections ConfigDict"
        )
    return config


def _line_in(file: Path, error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f" at line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f" at line {lines[-1]}" if lines else ""


def _one_line(error: BaseException) -> str:
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(message.split())}"


def _rename_keys(name: str, config: ConfigDict, schema: ConfigDict) -> None:
    """Gives the keys that a config file has set by their old name their new one.

    The old name decides, though the config has the new one too: that is there from the defaults, or from the config
    that this one starts from, and the old one is there only if the file has set it.
    """
    defaults = flatten(schema)
    for old, value in flatten(config).items():
        new = current_name(old, defaults)
        if new == old:
            continue
        _log.warning("%s sets %s, which is now called %s", name, old, new)
        with config.unlocked():
            group, leaf = _group_of(config, old)
            del group[leaf]
            try:
                config.update_from_flattened_dict({new: value})
            except TypeError as error:
                expected = _expected(schema, new, defaults[new])
                raise UserError(f"{name}: key {old} takes {expected}, not {value!r}") from error


def _check_keys(name: str, config: ConfigDict, schema: ConfigDict) -> None:
    keys, defaults = flatten(config), flatten(schema)
    for key in keys:
        if key not in defaults:
            raise UserError(f"{name}: {_unknown_key(key, list(defaults))}")
    missing = [key for key in defaults if key not in keys]
    if missing:
        raise UserError(f"{name} lacks {', '.join(missing)}: start get_config() from the defaults")


def _unknown_key(key: str, known: list[str]) -> str:
    inside = [other for other in known if other.startswith(f"{key}.")]
    if inside:
        return f"config key {key} is a group: set one of {', '.join(inside)}"
    leaf = key.rpartition(".")[2]
    names = [*known, *(old for old in RENAMED if current_name(old, known) != old)]
    same_leaf = [other for other in names if other.rpartition(".")[2] == leaf]
    close = same_leaf or difflib.get_close_matches(key, names, n=1)
    if close:
        return f"unknown config key {key}: did you mean {' or '.join(current_name(name, known) for name in close)}?"
    return f"unknown config key {key}: --help lists them"


def _expected(schema: ConfigDict, key: str, default: Any) -> str:
    group, leaf = _group_of(schema, key)
    expected = group.get_type(leaf)
    name = _TYPE_NAMES.get(expected) or expected.__name__
    if isinstance(default, tuple) and default:
        name += f" of {type(default[0]).__name__}"
    return f"{name} or none" if default is None else name


def _group_of(config: ConfigDict, key: str) -> tuple[ConfigDict, str]:
    """The group of keys that a key is in, and the key's name in it."""
    *groups, leaf = key.split(".")
    for name in groups:
        config = config[name]
    return config, leaf


def _check_elements(default: Any, value: Any) -> None:
    """Raises ValueError for an element of another type than the default's, which ml_collections does not look at."""
    if not isinstance(default, tuple) or not default:
        return
    kind = type(default[0])
    accepted = (int, float) if kind is float else kind
    if not all(isinstance(element, accepted) and (kind is bool or type(element) is not bool) for element in value):
        raise ValueError("an element of another type")
