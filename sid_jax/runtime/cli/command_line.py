"""What the commands share at the command line: flags, help, config overrides, and how they end.

def main(argv):
    parser = command_line.Parser("python -m sid_jax.train", "Distill a teacher into a few-step generator.")
    parser.add_argument("--workdir", help="the run's folder")
    arguments, config = sid_jax.config.parse(parser, argv)

Its module begins as `start` says.
"""

import argparse
import difflib
import errno
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypeVar, overload

from ml_collections import ConfigDict

from sid_jax.errors import UserError
from sid_jax.runtime.cli import config_file, terminal
from sid_jax.runtime.cli.program import as_called
from sid_jax.runtime.cli.settings import Chapter
from sid_jax.runtime.cli.settings_help import listing
from sid_jax.runtime.cli.streams import unbreakable_output
from sid_jax.runtime.devices import jax_settings, preemption
from sid_jax.runtime.devices.preemption import Preempted
from sid_jax.runtime.devices.processes import ProcessLost

OVERRIDE = "--config."
WIDTH = 110  # columns: longer lines are hard to read

_N = TypeVar("_N")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UserErrors of one line, and whose help fits the terminal.

    chapters: the settings of its config, which the help lists at its end.

    Args:
      command: as `python -m` calls it; usage and examples say `sid-jax` where the process was called by that.
      description: what the command does.
      epilog: more of it, and examples.
    """

    def __init__(self, command: str, description: str, epilog: str = ""):
        self.chapters: Sequence[Chapter] = ()
        super().__init__(
            prog=as_called(command),
            description=as_called(description),
            epilog=as_called(epilog),
            allow_abbrev=False,
            formatter_class=_Formatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raises the UserError, which says where the flags are listed."""
        raise UserError(f"{message} ({self.prog} --help lists the flags)")

    def format_help(self) -> str:
        """The help on flags, and then on settings."""
        flags = super().format_help()
        return f"{flags}\n{listing(self.chapters, _width())}\n" if self.chapters else flags

    @overload
    def parse_args(self, args: Iterable[str] | None = None, namespace: None = None) -> argparse.Namespace: ...

    @overload
    def parse_args(self, args: Iterable[str] | None, namespace: _N) -> _N: ...

    @overload
    def parse_args(self, *, namespace: _N) -> _N: ...

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """Does what argparse's does, but the error of an unknown flag names the closest known flag, and comes first.

        Who mistypes `--help` is not told that flags are missing.
        """
        given = list(sys.argv[1:] if args is None else args)
        for argument in given[: given.index("--")] if "--" in given else given:
            flag = argument.partition("=")[0]
            if flag.startswith("--") and " " not in flag and flag not in self._option_string_actions:
                self._unknown(flag)
        parsed, unknown = self.parse_known_args(given, namespace)
        if unknown:
            self._unknown(unknown[0].partition("=")[0])
        return parsed

    def _unknown(self, flag: str) -> NoReturn:
        close = difflib.get_close_matches(flag, self._option_string_actions, n=1)
        hint = f": did you mean {close[0]}?" if close else ""
        self.error(f"unknown argument {flag}{hint}")


class _Formatter(argparse.HelpFormatter):
    """Wraps paragraphs at the terminal's width, but for those with lists, which keep their lines."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=32, width=_width())

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip("\n").split("\n\n")
        return "\n\n".join(
            paragraph if "\n " in f"\n{paragraph}" else textwrap.fill(paragraph, width, break_on_hyphens=False)
            for paragraph in paragraphs
        )


def _width() -> int:
    """Of the terminal, within what can be read well; where there is none, as in a file, the usual one."""
    return min(max(shutil.get_terminal_size((WIDTH, 24)).columns - 2, 60), WIDTH)


def add_step(parser: argparse.ArgumentParser) -> None:
    """Adds `--step`, which chooses a checkpoint of the run that `--run` names."""
    parser.add_argument(
        "--step", metavar="N", type=int,
        help="the checkpoint of update N of the run (default: the newest; keep_best and keep_every keep others)",
    )  # fmt: skip


def parse_with_config(
    parser: Parser, argv: Sequence[str] | None, schema: config_file.Schema, chapters: Sequence[Chapter] = ()
) -> tuple[argparse.Namespace, ConfigDict]:
    """Parses the parser's flags together with `--config FILE` and its `--config.key=value` overrides.

    Adds `--config` and the settings to the parser, so that `--help` shows both.

    Args:
      parser: the command's own flags.
      argv: the arguments; None: those of this process.
      schema: every key with its default, or a function of a config that gives them.
      chapters: what the help says of the settings.

    Returns:
      the flags (`config` among them is the file's path) and the resolved, locked config.

    Raises:
      UserError: a flag, the config file or an override is wrong.
    """
    parser.add_argument(
        "--config", metavar="FILE", required=True,
        help="Python file whose get_config() returns the settings; or a name of configs/, such as digits_1step",
    )  # fmt: skip
    parser.chapters = chapters
    rest, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
    arguments = parser.parse_args(rest)
    return arguments, config_file.load(arguments.config, schema, overrides)


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Takes `--config.key=value` and `--config.key value` out of the arguments.

    Returns:
      the other arguments, and the (key, value) of each override in order.

    Raises:
      UserError: an override has no value.
    """
    rest: list[str] = []
    overrides: list[tuple[str, str]] = []
    arguments = iter(argv)
    for argument in arguments:
        if not argument.startswith(OVERRIDE):
            rest.append(argument)
            continue
        key, equals, value = argument.removeprefix(OVERRIDE).partition("=")
        if not equals:
            following = next(arguments, None)
            if following is None or following.startswith("--"):
                raise UserError(f"{argument} lacks a value: write {argument}=VALUE")
            value = following
        overrides.append((key, value))
    return rest, overrides


def run(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Calls `main(argv)` and returns the process's exit code.

    0, or what `main` returns: the command is done. 2: there was a UserError or a full disk, or JAX has no devices,
    which is printed as one line `error: ...`. 75: the run was preempted and has saved, or another process of it is
    lost; the same command goes on. 130: the user interrupted it. Anything else that `main` raises is a defect and keeps
    its traceback. That something can't be printed is none, and changes no exit code.
    """
    with unbreakable_output(), terminal.showing():
        return _run(main, argv)


def _run(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None) -> int:
    jax_settings.fix()
    try:
        return main(argv) or 0
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: {error.filename or 'a file'} can't be written: {error.strerror}", file=sys.stderr)
        return 2
    except (Preempted, ProcessLost) as message:
        print(f"{message}; run the same command again to go on", file=sys.stderr)
        return preemption.EXIT_CODE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception:
        problem = jax_settings.problem_of_start()
        if problem is None:
            raise
        print(f"error: {problem}", file=sys.stderr)
        return 2
