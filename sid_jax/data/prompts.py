"""Prompts: text files with one prompt a line."""

import codecs
import os
import re

from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import absolute
from sid_jax.runtime.storage.small_files import Unreadable, read_small_bytes, shown

_MOST_BYTES = 2**30  # of a file: ten million prompts
_MOST_LETTERS = 100_000  # of a prompt; text encoders read some 77 words
_MARKS = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"),
          (codecs.BOM_UTF16_BE, "UTF-16"))  # fmt: skip
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+")


def read_prompt_file(path: str) -> list[str]:
    """The prompts of a UTF-8 text file, one a line; blank lines and outer spaces are left out.

    A file that begins with the byte order mark of UTF-16 or UTF-32, as some of Windows' programs write it, is read as
    such.

    Args:
      path: local or gs://.

    Raises:
      UserError: the file is missing, no regular file, unreadable, too large, not UTF-8, or without a prompt; or one of
        its prompts is endless, or has a NUL.
    """
    if not path:
        raise UserError("prompts is empty: set it to a text file with one prompt a line")
    name = f"prompts file {shown(path)}"
    try:
        text = _decoded(read_small_bytes(absolute(path), _MOST_BYTES), name)
    except Unreadable as error:
        if error.missing:
            raise UserError(f"{name} does not exist") from None
        if error.folder:
            raise UserError(f"{name} is a folder: name a text file with one prompt a line") from None
        raise UserError(f"prompts file {error}") from None
    except (OSError, ValueError, RuntimeError) as error:  # of making the path absolute
        raise UserError(f"{name} can't be read: {error}") from None
    # Not splitlines(), which also splits at the rarer separators that captions from the web carry.
    prompts = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    for number, prompt in enumerate(prompts, 1):
        if "\0" in prompt:
            raise UserError(f"{name} has a NUL in line {number}: is it text? convert it to UTF-8")
        if len(prompt) > _MOST_LETTERS:
            raise UserError(f"{name}: line {number} has {len(prompt)} letters, a prompt at most {_MOST_LETTERS}")
    prompts = [prompt for prompt in prompts if prompt]
    if not prompts:
        raise UserError(f"{name} is empty: write one prompt a line")
    return prompts


def read_prompts(text_or_file: str) -> list[str]:
    """The prompts of a file, if the argument names an existing one or ends in .txt; else the argument as one prompt.

    A folder, a pipe or an address such as gs://bucket/prompts is taken as what was meant for a file.

    Raises:
      UserError: the file can't be read, or has no prompt; or the prompt is no text.
    """
    if names_file(text_or_file):
        return read_prompt_file(text_or_file)
    return [as_prompt(text_or_file)]


def as_prompt(text: str) -> str:
    """The text itself. Raises UserError where it is none that can be written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"the prompt {shown(text)} is not UTF-8: set the terminal to it") from None
    return text


def names_file(text: str) -> bool:
    """Whether a text that may be a prompt is taken for the name of a file."""
    return text.endswith(".txt") or _ADDRESS.fullmatch(text) is not None or _exists(text)


def _decoded(data: bytes, name: str) -> str:
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "UTF-8-sig")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "UTF-8-sig":
            raise UserError(f"{name} begins as {encoding} does, and is not: convert it to UTF-8") from None
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{name} is not UTF-8 at line {line}: convert it to UTF-8") from None


def _exists(text: str) -> bool:
    try:
        return bool(text) and os.path.lexists(os.path.expanduser(text))
    except ValueError:  # no file can have such a name
        return False
