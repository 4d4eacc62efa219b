import contextlib
import io
import os

import pytest

from sid_jax.runtime.run import progress
from sid_jax.runtime.run.progress import Progress, following


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_file_gets_plain_lines_now_and_then():
    file = io.StringIO()
    bar = Progress(800, file=file, plain_seconds=0)
    bar.update(80, {"loss": 1.23456})
    bar.update(160)
    bar.close()
    first, second, last = file.getvalue().splitlines()
    assert first.startswith("10%: 80/800 images, ")
    assert "images/s" in first
    assert "left, loss=1.235" in first
    assert second.startswith("20%: 160/800 images, ")
    assert "loss=1.235" in second
    assert last.startswith("20%: ")
    assert "\r" not in file.getvalue()


def test_a_file_gets_no_line_for_each_update():
    file = io.StringIO()
    bar = Progress(1000, file=file, plain_seconds=1e9)
    for images in range(1, 1001):
        bar.update(images)
    bar.close()
    assert len(file.getvalue().splitlines()) == 1
    assert file.getvalue().startswith("100%: 1000/1000 images")


def test_compiling_is_not_counted():
    """200 seconds until the first update is done, and one second for each after it."""
    file = io.StringIO()
    bar = Progress(800, file=file, plain_seconds=0)
    began = bar._bar.start_t
    for update in range(3):
        bar._bar._time = lambda update=update: began + 200 + update
        bar.update(80 * (update + 1))
    assert file.getvalue().splitlines() == [
        "10%: 80/800 images, ? images/s, ? left",
        "20%: 160/800 images, 80.00 images/s, 00:08 left",
        "30%: 240/800 images, 80.00 images/s, 00:07 left",
    ]
    bar.close()


def test_a_terminal_gets_a_bar():
    file = Terminal()
    bar = Progress(800, file=file)
    bar.update(400, {"loss": float("nan")})
    bar.say("wrote a grid")
    bar.close()
    assert "\r" in file.getvalue()
    assert "400/800 images" in file.getvalue()
    assert "loss=nan" in file.getvalue()
    assert "wrote a grid\n" in file.getvalue()


def test_a_terminal_without_lines_gets_plain_lines():
    master, slave = os.openpty()
    with open(slave, "w") as file:
        Progress(800, done=400, file=file).close()
        shown = os.read(master, 1000).decode()
    os.close(master)
    assert shown.startswith("50%: 400/800 images")


def test_a_resumed_run_starts_where_it_was():
    file = io.StringIO()
    bar = Progress(800, done=400, file=file)
    bar.close()
    assert file.getvalue().startswith("50%: 400/800 images")


def test_other_processes_are_silent(monkeypatch):
    monkeypatch.setattr(progress.jax, "process_index", lambda: 1)
    file = io.StringIO()
    bar = Progress(800, file=file, plain_seconds=0)
    bar.update(80, {"loss": 1.0})
    bar.say("text")
    bar.close()
    assert file.getvalue() == ""


def shown(monkeypatch, capsys, patience, plain_seconds):
    """What is shown while three items are followed."""
    monkeypatch.setattr(progress, "PATIENCE", patience)
    monkeypatch.setattr(progress, "PLAIN_SECONDS", plain_seconds)
    assert list(following(iter([1, 2, 3]), 6, "reading unet", "parameters", size=int)) == [1, 2, 3]
    return capsys.readouterr().err.splitlines()


def test_what_takes_a_moment_is_not_shown(monkeypatch, capsys):
    assert shown(monkeypatch, capsys, patience=1e9, plain_seconds=0) == []


def test_what_takes_a_few_seconds_needs_no_line(monkeypatch, capsys):
    assert shown(monkeypatch, capsys, patience=1e-9, plain_seconds=1e9) == []


def test_what_takes_longer_is_followed_to_its_end(monkeypatch, capsys):
    lines = shown(monkeypatch, capsys, patience=1e-9, plain_seconds=0)
    assert [" ".join(line.split(", ")[0].split()) for line in lines] == [
        "reading unet: 17%: 1/6 parameters", "reading unet: 50%: 3/6 parameters", "reading unet: 100%: 6/6 parameters",
    ]  # fmt: skip
    assert all(line.endswith(" left") for line in lines)


def test_following_asks_for_no_devices(monkeypatch):
    monkeypatch.setattr(progress.jax, "process_index", lambda: pytest.fail("JAX would start"))
    assert list(following([1], 1, "converting")) == [1]


def test_what_is_given_up_is_closed(monkeypatch):
    file = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", file)
    monkeypatch.setattr(progress, "PATIENCE", 1e-9)
    with contextlib.closing(following([1, 2], 2, "writing")) as items:
        next(items)
        next(items)
    assert file.getvalue().endswith("\n")
