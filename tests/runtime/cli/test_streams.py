"""What is printed goes nowhere where it can't be written, and nothing ends by it."""

import contextlib
import io
import logging
import os
import sys

import pytest
from etils import epath
from tqdm import tqdm

from sid_jax.runtime.cli import command_line
from sid_jax.runtime.cli.streams import unbreakable, unbreakable_output
from sid_jax.runtime.run.messages import logging_to
from sid_jax.runtime.run.progress import Progress


@contextlib.contextmanager
def unread_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", buffering=1) as stream:
        yield stream


@contextlib.contextmanager
def hung_up_terminal():
    terminal, ours = os.openpty()
    stream = open(ours, "w", buffering=1)  # noqa: SIM115
    os.close(terminal)
    yield stream
    with contextlib.suppress(OSError):
        stream.close()


@contextlib.contextmanager
def full_disk():
    stream = open("/dev/full", "w", buffering=1)  # noqa: SIM115
    yield stream
    with contextlib.suppress(OSError):
        stream.close()


@contextlib.contextmanager
def closed():
    with open(os.devnull, "w") as stream:
        pass
    yield stream


@contextlib.contextmanager
def ascii_only():
    yield io.TextIOWrapper(io.BytesIO(), "ascii")


BROKEN = [unread_pipe, hung_up_terminal, full_disk, closed, ascii_only, contextlib.nullcontext]


@pytest.mark.parametrize("broken", BROKEN)
def test_what_a_run_says_does_not_end_it(broken, tmp_path, monkeypatch):
    with broken() as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with logging_to(epath.Path(tmp_path)):
            logging.getLogger("sid_jax.train").info("teacher: 先生 \udce9")
            bar = Progress(800, plain_seconds=0)
            bar.update(80, {"loss": 1.0})
            bar.say("先生")
            bar.close()
        monkeypatch.undo()
    assert (tmp_path / "run.log").read_text().endswith(" INFO teacher: 先生 \\udce9\n")


@pytest.mark.parametrize("broken", BROKEN)
def test_no_command_ends_by_what_it_prints(broken, monkeypatch):
    def main(argv):
        print("先生", flush=True)
        print("先生", file=sys.stderr, flush=True)
        list(tqdm(range(3)))
        return 7

    with broken() as stdout, broken() as stderr:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", stderr)
        assert command_line.run(main, []) == 7
        assert (sys.stdout, sys.stderr) == (stdout, stderr)
        if stdout is not None and not stdout.closed:
            stdout.flush()  # as Python does at its end
        monkeypatch.undo()


def test_letters_that_an_encoding_has_not_are_written_as_escapes():
    bytes_ = io.BytesIO()
    stream = unbreakable(io.TextIOWrapper(bytes_, "latin-1"))
    stream.write("é 先\n")
    stream.flush()
    assert bytes_.getvalue() == b"\xe9 \\u5148\n"


@pytest.mark.parametrize(("broken", "said"), [(full_disk, True), (unread_pipe, False)])
def test_what_is_missing_on_stdout_is_said_where_somebody_reads_it(broken, said, monkeypatch, capsys):
    with broken() as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with unbreakable_output():
            print("a table")
        monkeypatch.undo()
    line = "warning: not all that was printed could be written: No space left on device\n"
    assert capsys.readouterr().err == (line if said else "")


def test_messages_before_a_run_are_lines_of_ours(capsys):
    def main(argv):
        logging.getLogger("sid_jax.runtime.cli.config_file").warning("a key has a new name")

    assert command_line.run(main, []) == 0
    assert capsys.readouterr().err == "warning: a key has a new name\n"
