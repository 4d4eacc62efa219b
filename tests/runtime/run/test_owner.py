"""One run at a time in a folder, on a disk and in a bucket."""

import json
import os
import signal
import socket

import pytest
from etils import epath

from sid_jax.errors import UserError
from sid_jax.runtime.run import owner
from sid_jax.runtime.run.owner import FILE, owning


@pytest.fixture
def quick(monkeypatch):
    """Beats and waits that a test has time for."""
    monkeypatch.setattr(owner, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(owner, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(owner, "_SETTLE_SECONDS", 0.0)


@pytest.fixture(params=["disk", "disk without locks", "bucket"])
def workdir(request, tmp_path, bucket, monkeypatch, quick):
    """A folder of each kind."""
    if request.param == "disk without locks":

        def refuse(*arguments):
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(owner.fcntl, "flock", refuse)
    folder = epath.Path(f"{bucket}/run" if request.param == "bucket" else tmp_path / "run")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_a_second_run_is_told_who_is_there(workdir):
    with owning(workdir):
        before = [(file.name, "beat") for file in workdir.iterdir()]
        with pytest.raises(UserError) as caught, owning(workdir):
            pass
        assert str(caught.value).startswith(
            f"workdir {workdir} is in use by process {os.getpid()} on {socket.gethostname()}, since 20"
        )
        assert before == [(FILE, "beat")] == [(file.name, "beat") for file in workdir.iterdir()]
    with owning(workdir):  # which has ended, so that nothing is waited for
        pass
    assert list(workdir.iterdir()) == []


def test_a_run_that_fails_leaves_the_folder(workdir):
    with pytest.raises(KeyboardInterrupt), owning(workdir):
        raise KeyboardInterrupt
    with owning(workdir):
        pass


def test_a_killed_run_holds_a_disk_no_longer(tmp_path):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with owning(epath.Path(tmp_path)):
            os.write(writing, b"x")
            signal.pause()
    os.read(reading, 1)
    with pytest.raises(UserError, match=f"in use by process {child} "), owning(epath.Path(tmp_path)):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    assert (tmp_path / FILE).exists()
    with owning(epath.Path(tmp_path)):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("left", [json.dumps({"host": "a", "pid": 1, "token": "x", "beat": 3}), "", "\xff", "[" * 2000])
def test_what_a_killed_run_left_in_a_bucket_is_waited_for(bucket, quick, left, caplog):
    workdir = epath.Path(f"{bucket}/run")
    (workdir / FILE).write_text(left)
    with owning(workdir):
        assert json.loads((workdir / FILE).read_text())["pid"] == os.getpid()
    assert "waiting up to" in caplog.messages[0]
    assert not (workdir / FILE).exists()


def test_a_run_that_another_has_taken_the_bucket_from_says_so(bucket, quick, caplog, monkeypatch):
    workdir = epath.Path(f"{bucket}/run")
    told = owner.threading.Event()
    monkeypatch.setattr(owner._log, "warning", lambda *message: told.set())
    with owning(workdir):
        (workdir / FILE).write_text(json.dumps({"host": "b", "pid": 2, "token": "other"}))
        assert told.wait(10)
    assert (workdir / FILE).exists()  # the other one's


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("nowhere", path)])
def test_something_else_in_the_place_of_the_file_is_one_line(tmp_path, make):
    make(tmp_path / FILE)
    with pytest.raises(UserError, match=f"^{tmp_path / FILE} "), owning(epath.Path(tmp_path)):
        pass


def test_of_several_processes_the_first_holds_and_all_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(owner.jax, "process_count", lambda: 2)
    monkeypatch.setattr(owner.processes, "gather", lambda value: owner.processes.np.array([True, value]))
    monkeypatch.setattr(owner.processes, "is_first", lambda: False)
    with pytest.raises(UserError, match="the first process of this run says why"), owning(epath.Path(tmp_path)):
        pass
    assert list(tmp_path.iterdir()) == []
