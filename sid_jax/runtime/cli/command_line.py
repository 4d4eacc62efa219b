"""What the commands share at the command line: flags, help, config overrides, and how they end.

def main(argv):
    parser = command_line.Parser("python -m sid_jax.train", "Distill a teacher into a few-step generator.")
    parser.add_argument("--workdir", help="the run's folder")
    arguments, config = command_line.parse_with_config(parser, argv, sid_jax.config.default())

if __name__ == "__main__":
    sys.exit(command_line.run(main))
"""

import argparse
import difflib
import errno
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ml_collections import ConfigDict

from sid_jax.errors import UserError
from sid_jax.runtime.cli import config_file
from sid_jax.runtime.devices import preemption
from sid_jax.runtime.devices.preemption import Preempted
from sid_jax.runtime.devices.processes import ProcessLost

OVERRIDE = "--config."


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UserErrors of one line, and whose help keeps the lines of its texts."""

    def __init__(self, command: str, description: str, epilog: str = ""):
        super().__init__(
            prog=command,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=_Formatter,
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} ({self.prog} --help lists the flags)")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:
        """As argparse's, but an unknown flag's error names the closest known one."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flag = unknown[0].partition("=")[0]
            close = difflib.get_close_matches(flag, self._option_string_actions, n=1)
            hint = f": did you mean {close[0]}?" if close else ""
            self.error(f"unknown argument {flag}{hint}")
        return parsed


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=32, width=110)


def parse_with_config(
    parser: Parser, argv: Sequence[str] | None, schema: ConfigDict
) -> tuple[argparse.Namespace, ConfigDict]:
    """Parses the parser's flags together with `--config FILE` and its `--config.key=value` overrides.

    Adds `--config` and a list of the schema's keys to the parser, so that `--help` shows both.

    Returns:
        the flags (`config` among them is the file's path) and the resolved, locked config.

    Raises:
        UserError: a flag, the config file or an override is wrong.
    """
    parser.add_argument(
        "--config", metavar="FILE", required=True, help="Python file whose get_config() returns the settings"
    )
    parser.epilog = "\n\n".join(part for part in (parser.epilog, _help_on_overrides(schema)) if part)
    rest, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
    arguments = parser.parse_args(rest)
    return arguments, config_file.load(arguments.config, schema, overrides)


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Takes `--config.key=value` and `--config.key value` out of the arguments.

    Returns:
        the other arguments, and the (key, value) of each override in order.
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

    0, or what `main` returns: done; 2: a UserError, or a full disk, printed as one line `error: ...`; 75: preempted
    and saved, or left alone by another process, to be run again; 130: interrupted. Anything else that `main` raises
    is a defect and keeps its traceback.
    """
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


def _help_on_overrides(schema: ConfigDict) -> str:
    defaults = config_file.flatten(schema)
    width = max(map(len, defaults))
    listing = "\n".join(f"  {key:<{width}}  {_shown(value)}" for key, value in defaults.items())
    return (
        "settings:\n"
        "  --config.KEY=VALUE (or --config.KEY VALUE) replaces one setting of the config file, in the type of\n"
        "  its default; a setting whose default is none takes none too. The keys and their defaults:\n\n" + listing
    )


def _shown(value: Any) -> str:
    return "none" if value is None else repr(value)
