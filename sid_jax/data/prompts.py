"""Prompts: text files with one prompt a line."""

from etils import epath

from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import absolute


def read_prompt_file(path: str) -> list[str]:
    """The prompts of a UTF-8 text file, one a line; blank lines and outer spaces are left out.

    Args:
      path: local or gs://.

    Raises:
      UserError: the file is missing, a folder, unreadable, not UTF-8, or without a prompt.
    """
    if not path:
        raise UserError("prompts is empty: set it to a text file with one prompt a line")
    file = absolute(path)
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"prompts file {path} does not exist") from None
    except IsADirectoryError:
        raise UserError(f"prompts file {path} is a folder: name a text file with one prompt a line") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"prompts file {path} is not UTF-8 at line {line}: convert it to UTF-8") from None
    except OSError as error:
        raise UserError(f"prompts file {path} can't be read: {error.strerror or error}") from None
    # Not splitlines(), which also splits at the rarer separators that captions from the web carry.
    prompts = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    prompts = [prompt for prompt in prompts if prompt]
    if not prompts:
        raise UserError(f"prompts file {path} is empty: write one prompt a line")
    return prompts


def read_prompts(text_or_file: str) -> list[str]:
    """The prompts of a file, if the argument names an existing one or ends in .txt; else the argument as one prompt.

    Raises:
      UserError: the file can't be read, or has no prompt.
    """
    if text_or_file.endswith(".txt") or _is_file(text_or_file):
        return read_prompt_file(text_or_file)
    return [text_or_file]


def _is_file(text: str) -> bool:
    try:
        return epath.Path(text).is_file()
    except (OSError, ValueError):  # no file can have a long prompt as its name
        return False
