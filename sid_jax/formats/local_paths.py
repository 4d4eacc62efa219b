"""What names a place on this machine, and must not leave it in a folder that may be published."""

import re
from pathlib import Path

from sid_jax.errors import UserError
from sid_jax.runtime.storage.json_files import read_json, write_json

_PATH = re.compile(r"(file:|~[\w.-]*|\.{1,2}|[A-Za-z]:)?[/\\]")
_CONFIGS = (
    "model_index.json", "config.json", "generation_config.json", "preprocessor_config.json", "scheduler_config.json",
    "special_tokens_map.json", "tokenizer_config.json",
)  # fmt: skip


def is_path(value: str) -> bool:
    """Whether a text is a path of this machine: absolute, of a home folder, with a dot first, or of what is there."""
    return len(value) > 1 and bool(_PATH.match(value) or _exists(value))


def last_name(value: str) -> str:
    """The last name of a path, or of a pattern of paths, with slashes of either kind."""
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1]


def without_paths(folder: Path) -> None:
    """Takes fields whose value is a path of this machine out of a folder's configurations, such as `_name_or_path`.

    Libraries write such fields when they save what they opened; none has a part in what a network or a tokenizer does.
    """
    for file in sorted(file for name in _CONFIGS for file in (*folder.glob(name), *folder.glob(f"*/{name}"))):
        try:
            config = read_json(file)
        except UserError:  # it was copied as it came, and says nothing that a reader can make sense of
            continue
        kept = {key: value for key, value in config.items() if not _names_a_path(key, value)}
        if kept != config:
            write_json(file, kept)


def _names_a_path(key: str, value: object) -> bool:
    return isinstance(value, str) and not key.endswith("_token") and "/" in value.replace("\\", "/") and is_path(value)


def _exists(value: str) -> bool:
    try:
        return "/" in value and Path(value).exists()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False
