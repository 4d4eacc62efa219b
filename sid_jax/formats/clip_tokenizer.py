"""CLIP's tokenizer in a folder, as transformers writes one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sid_jax.errors import UserError
from sid_jax.runtime.storage.impostors import FIRST_BYTES, what_it_is
from sid_jax.runtime.storage.json_files import read_json
from sid_jax.runtime.storage.small_files import read_small_bytes

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

_VOCABULARY = ("vocab.json", "merges.txt", "tokenizer.json")
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
TOKENIZER_FILES = (*_VOCABULARY, *_SETTINGS)
"""The files that a tokenizer may have."""

_SHORTEST = 3  # tokens: where a text begins, one word, where it ends
_NO_LIMIT = 10**30  # what transformers says of the length of a text that has no limit


def read_tokenizer(folder: Path) -> "CLIPTokenizer":
    """CLIP's tokenizer in a folder.

    Raises:
      UserError: there is none, or it is damaged.
    """
    from transformers import CLIPTokenizer  # here, as it takes seconds

    if not has_tokenizer(folder):
        raise UserError(f"{folder}: no vocab.json and merges.txt, nor tokenizer.json")
    try:
        _check_texts(folder)
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # of any type, from the several parsers behind it
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{folder}: not the tokenizer of a CLIP text encoder ({reason[:300]})") from error
    tokenizer.model_max_length = _length(tokenizer.model_max_length, folder)
    return tokenizer


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has a vocabulary, without which transformers would make up a tokenizer of three words."""
    files = {file.name for file in folder.glob("*")}
    return "tokenizer.json" in files or {"vocab.json", "merges.txt"} <= files


def _check_texts(folder: Path) -> None:
    """Refuses what the parsers of transformers would wait for, or fill the memory with.

    Raises:
      UserError: a file is no regular one, too large, or no JSON object where one is needed.
    """
    for file in sorted(folder.iterdir()):
        if file.name == "merges.txt":
            if known := what_it_is(read_small_bytes(file)[:FIRST_BYTES]):
                raise UserError(f"{file}: {known}")
        elif file.name in TOKENIZER_FILES:
            read_json(file)
        elif file.exists() and not file.is_file() and not file.is_dir():
            raise UserError(f"{file}: not a regular file")


def _length(value: Any, folder: Path) -> int:
    """The largest number of tokens of a text, from a tokenizer's model_max_length; 1e30 says that there is no limit."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= _SHORTEST or value % 1:
        raise UserError(f"{folder}: model_max_length is {value!r:.80}; a whole number from {_SHORTEST} on is needed")
    return int(min(value, _NO_LIMIT))
