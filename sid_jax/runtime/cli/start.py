"""The first moments of a command: what ends it while its modules are imported is one line too, and no traceback.

A command's module begins with these lines, before its imports, which take seconds:

if __name__ == "__main__":
    from sid_jax.runtime.cli.start import start

    start("sid_jax.train")
"""

import contextlib
import importlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from sid_jax.runtime.cli.streams import open_standard_files, unbreakable_output
from sid_jax.runtime.devices.ending import hearing

_PARSE_XLA_FLAGS = """
from jaxlib import xla_client
xla_client.CompileOptions().executable_build_options.debug_options
"""


_LARGE_PAGES = "glibc.malloc.hugetlb"


def start(command: str, *, preemptible: bool = False) -> NoReturn:
    """Imports the module of a command, runs its `main`, and ends the process.

    Args:
      command: the module's name.
      preemptible: whether SIGTERM and SIGHUP end it with one line and exit code 75 from now on.
    """
    _take_large_pages()
    open_standard_files()
    # Of what is imported transformers alone has advice for every user, such as to install PyTorch.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    with unbreakable_output(), hearing() if preemptible else contextlib.nullcontext():
        code = _run(command)
    sys.exit(code)


def _take_large_pages() -> None:
    """Has the C library ask for memory in pages of 2 MiB. It reads this as a process begins, which so begins anew.

    XLA for CPUs takes the memory of an update anew each time, and the system clears it page by page. With pages of
    4 KiB an update takes up to a quarter longer (docs/cpu.md). What GLIBC_TUNABLES says of it stays as it is.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    from_stdin = sys.argv[0] in ("", "-")  # and read by now
    if sys.platform == "linux" and sys.executable and not from_stdin and _LARGE_PAGES not in given:
        os.environ["GLIBC_TUNABLES"] = f"{given}:{_LARGE_PAGES}=1".strip(":")
        os.execv(sys.executable, sys.orig_argv)


def _run(command: str) -> int:
    with _interruptible():
        problem = _problem_of_jax()
        if problem:
            print(f"error: {problem}", file=sys.stderr)
            return 2
        importlib.import_module("sid_jax.runtime.devices.jax_settings").quicken_cpu()
        module = importlib.import_module(command)
        command_line = importlib.import_module("sid_jax.runtime.cli.command_line")
    return command_line.run(module.main)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """A context in which Ctrl-C ends the process at once: an exception could be taken for an import that failed."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        print("interrupted", file=sys.stderr, flush=True)
        os._exit(130)

    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # as in the background of a script
        yield
        return
    signal.signal(signal.SIGINT, end)
    yield
    signal.signal(signal.SIGINT, before)


def _problem_of_jax() -> str | None:
    """What is wrong with the environment's settings of JAX and XLA, which they read as they are imported."""
    # XLA ends a process whose flags it does not know, and so it is asked in another one.
    asked = None
    if os.environ.get("XLA_FLAGS", "").strip():
        asked = subprocess.Popen(
            [sys.executable, "-c", _PARSE_XLA_FLAGS], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
    try:
        importlib.import_module("jax")
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed: in a checkout, pip install -r requirements.txt, or pip install ."
    except ValueError as error:
        given = ", ".join(f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("JAX_"))
        return f"JAX does not start with {given or 'these settings'}: {' '.join(str(error).split())}"
    said = asked.communicate()[1] if asked else ""
    refused = re.search(r"parse_flags_from_env\S* (.*)", said)
    return f"XLA does not start: {refused[1]}; change XLA_FLAGS" if refused else None
