"""Score identity Distillation: a pretrained diffusion model in, a generator of one to four steps out."""

import ast
import difflib
import importlib.util
import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec

import sid_jax
from sid_jax.runtime.cli.program import as_called
from sid_jax.runtime.cli.streams import unbreakable_output

COMMANDS = (
    "train",
    "sample",
    "evaluate",
    "reference",
    "report",
    "export",
    "plan",
    "encode",
    "dataset",
    "convert",
    "pretrain",
)
"""In the order in which a user meets them. Each is a module of this package with a docstring of one line."""


def main() -> int:
    """The console script `sid-jax`, and `python -m sid_jax`; returns the exit code where no command is run.

    A command is run as by `python -m sid_jax.COMMAND`, and no other one is imported.
    """
    arguments = sys.argv[1:]
    if arguments and arguments[0] in COMMANDS:
        sys.argv[1:] = arguments[1:]
        runpy.run_module(f"sid_jax.{arguments[0]}", run_name="__main__")
        return 0
    with unbreakable_output():
        return _without_command(arguments)


def _without_command(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(as_called(_listing()))
        return 0
    if arguments[0] == "--version":
        print(f"sid_jax {sid_jax.__version__}")
        return 0
    name = arguments[0]
    if name.startswith("-"):
        problem = f"a command comes before {name.partition('=')[0]}, such as train"
    else:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f": did you mean {close[0]}?" if close else ""
        problem = f"unknown command {name}{hint}"
    print(as_called(f"error: {problem} (python -m sid_jax --help lists the commands)"), file=sys.stderr)
    return 2


def _listing() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {_meaning_of(name)}" for name in COMMANDS]
    return "\n".join([
        "usage: python -m sid_jax COMMAND [FLAGS]", "", str(__doc__), "", "commands:", *lines, "",
        "python -m sid_jax COMMAND --help says more of one; python -m sid_jax --version which version this is.",
    ])  # fmt: skip


def _meaning_of(command: str) -> str:
    """The first line of a command's docstring, read from its file: importing them all takes seconds."""
    spec = importlib.util.find_spec(f"sid_jax.{command}")
    assert isinstance(spec, ModuleSpec) and spec.origin
    with open(spec.origin, encoding="utf-8") as file:
        text = ast.get_docstring(ast.parse(file.read())) or ""
    return text.partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
