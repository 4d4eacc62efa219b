"""Prompts: text files with one prompt a line, and the endless shuffled stream that training draws from."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import grain
from etils import epath

from sid_jax.errors import UserError
from sid_jax.runtime.files import absolute

_log = logging.getLogger(__name__)

Arrays = Any  # a pytree of numpy arrays [B, ...]


def read_prompt_file(path: str) -> list[str]:
    """The prompts of a UTF-8 text file, local or gs://, one a line; blank lines and outer spaces are left out.

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
    """The prompts of a file, if the argument names an existing one or ends in .txt; else the argument as one prompt."""
    if text_or_file.endswith(".txt") or _is_file(text_or_file):
        return read_prompt_file(text_or_file)
    return [text_or_file]


class PromptStream:
    """Batches of prompts without end, each epoch in an order of its own that depends on `seed` alone.

    Iteration i takes the next 2 * batch prompts of the stream: `batch` for the fake update and `batch` others for the
    generator update. What the prompts of an iteration are does not depend on the number of hosts: each host reads its
    rows of both batches, and the position is the same on all of them.

    Args:
        prompts: at least one; fewer than a batch will do.
        batch: B, prompts an update over all hosts.
        seed: of the order.
        read: from a list of prompts to a pytree of numpy arrays [len(list), ...], such as tokens.
        rows: the indices of this host's rows of a batch; by default all.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        batch: int,
        seed: int,
        read: Callable[[list[str]], Arrays],
        rows: Sequence[int] | None = None,
    ):
        rows = range(batch) if rows is None else rows

        def both_batches(drawn: list[str]) -> dict[str, Arrays]:
            return {
                "fake": read([drawn[row] for row in rows]),
                "generator": read([drawn[batch + row] for row in rows]),
            }

        shuffled = grain.MapDataset.source(list(prompts)).seed(seed % 2**32).shuffle().repeat()
        batches = shuffled.batch(2 * batch, batch_fn=list).map(both_batches)
        # No threads: tokenizers are not safe to call from two at once, and a device is busy while the host tokenises.
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        self._iterator = iter(batches.to_iter_dataset(options))
        self._digest = hashlib.sha256("\n".join(prompts).encode()).hexdigest()

    def __iter__(self) -> "PromptStream":
        return self

    def __next__(self) -> dict[str, Arrays]:
        """This host's part of the next iteration: `fake` and `generator`, arrays [len(rows), ...]."""
        return next(self._iterator)

    def position(self) -> dict[str, Any]:
        """Where the stream is, as a JSON-able dict for `restore`."""
        return {"iterator": self._iterator.get_state(), "prompts": self._digest}

    def restore(self, position: dict[str, Any], force: bool = False) -> None:
        """Goes on exactly where `position` was taken.

        Args:
            position: what `position` has returned.
            force: with other prompts too, at the same place of their order.

        Raises:
            UserError: the prompts are not those that the position was taken with.
        """
        if position["prompts"] != self._digest:
            if not force:
                raise UserError(
                    "the prompts are not those that this run was started with: restore the file, or use another "
                    "workdir, or --resume=force to go on with these"
                )
            _log.warning("going on with other prompts, as --resume=force asks")
        self._iterator.set_state(position["iterator"])


def _is_file(text: str) -> bool:
    try:
        return epath.Path(text).is_file()
    except (OSError, ValueError):  # a long prompt is no possible file name
        return False
