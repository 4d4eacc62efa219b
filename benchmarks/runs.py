"""Runs of `sid_jax.train` in processes of their own, for what is done to them from outside.

A process is forked from one that has imported everything and has not yet started JAX: it begins in the time that it
takes to trace the train step, which is compiled once and then read from a cache.
"""

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sid_jax import train
from sid_jax.runtime.cli import command_line

UPDATES, BATCH = 40, 8


class Runs:
    """Starts runs of 40 updates of the tiny teacher.

    Args:
        folder: where everything is; `write_tiny` has been there.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def start(self, workdir: Path, *arguments: str, before: Callable[[], None] | None = None) -> "Process":
        """A run in `workdir` with further arguments; its output goes to `<workdir>.out`.

        Args:
            workdir: its folder.
            *arguments: of the command.
            before: is called in the run's process, before the run.
        """
        argv = [*arguments_of(self.folder, workdir), *arguments]

        def run() -> int:
            if before is not None:
                before()
            return command_line.run(train.main, argv)

        return Process(run, self.folder, workdir)

    def straight(self) -> Path:
        """The workdir of a run to which nothing is done."""
        workdir = self.folder / "straight"
        if not (workdir / "checkpoints" / str(UPDATES)).exists():
            code = self.start(workdir).wait()
            assert code == 0, code
        return workdir

    def same(self, workdir: Path) -> bool:
        """Whether a run that has ended has the state, the data position and the metrics of `straight`, to the bit."""
        straight = self.straight()
        if (workdir / "metrics.jsonl").read_bytes() != (straight / "metrics.jsonl").read_bytes():
            return False
        newest = [folder / "checkpoints" / str(UPDATES) for folder in (straight, workdir)]
        return in_a_process(lambda: 0 if _equal_checkpoints(*newest) else 1) == 0


class Process:
    """A forked process that calls a function and ends with the exit code that it returns."""

    def __init__(self, function: Callable[[], int], folder: Path, workdir: Path):
        self._metrics, self._log = workdir / "metrics.jsonl", workdir / "run.log"
        self._starts = self._count_starts()
        self.output = workdir.with_name(f"{workdir.name}.out")
        self.checkpoints = workdir / "checkpoints"
        self._pid = os.fork()
        if self._pid == 0:
            _become(function, folder, self.output)

    def wait(self) -> int:
        """The exit code; that of a signal is negative."""
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def send(self, number: signal.Signals) -> int:
        """Sends a signal and waits."""
        os.kill(self._pid, number)
        return self.wait()

    def ended(self) -> bool:
        """Whether it has ended; it is not waited for."""
        return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def until(self, condition: Callable[[], bool]) -> bool:
        """Waits until something is so, which it returns as true, or until the process has ended."""
        while not condition():
            if self.ended():
                return False
            time.sleep(0.003)
        return True

    def step(self) -> int:
        """The update of the last line of the log."""
        try:
            return json.loads(self._metrics.read_text().splitlines()[-1])["step"]
        except (OSError, ValueError, IndexError):
            return 0

    def training(self) -> bool:
        """Whether it has come as far as the first update: until then the log is that of the process before."""
        return self._count_starts() > self._starts

    def _count_starts(self) -> int:
        return self._log.read_text().count(" at update ") if self._log.exists() else 0

    def saving(self) -> bool:
        """Whether a checkpoint is being written."""
        return any(self.checkpoints.glob("*.orbax-checkpoint-tmp")) if self.checkpoints.is_dir() else False

    def saved(self) -> int:
        """The update of the newest checkpoint that is complete."""
        names = [path.name for path in self.checkpoints.iterdir()] if self.checkpoints.is_dir() else []
        return max((int(name) for name in names if name.isdigit()), default=0)


def arguments_of(folder: Path, workdir: Path) -> list[str]:
    """Arguments of `train` for a run of the tiny teacher in `folder`."""
    tiny = folder / "tiny"
    return [
        "--config=configs/digits_1step.py", f"--workdir={workdir}", f"--config.teacher={tiny / 'teacher'}",
        f"--config.prompts={tiny / 'prompts.txt'}", "--config.evaluate.metric=", "--config.evaluate.pictures=0",
        f"--config.images={UPDATES * BATCH}", f"--config.batch={BATCH}", "--config.log_every=1",
        "--config.sample_every=1000", "--config.sample_images=4", "--config.checkpoint_every=4",
    ]  # fmt: skip


def in_a_process(function: Callable[[], int | None], kill_after: float | None = None) -> int:
    """The exit code of a function that may start JAX, which here would be in the way of further processes."""
    with tempfile.TemporaryDirectory() as folder:
        process = Process(lambda: function() or 0, Path(folder), Path(folder) / "run")
        if kill_after is not None:
            time.sleep(kill_after)
            return process.wait() if process.ended() else process.send(signal.SIGKILL)
        code = process.wait()
        if code:
            print(process.output.read_text(), file=sys.stderr)
        return code


def _equal_checkpoints(one: Path, other: Path) -> bool:
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    states = [ocp.PyTreeCheckpointer().restore(folder / "state") for folder in (one, other)]
    leaves = [jax.tree_util.tree_leaves_with_path(state) for state in states]
    same_state = all(
        a == b and np.asarray(x).dtype == np.asarray(y).dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for (a, x), (b, y) in zip(*leaves, strict=True)
    )
    data = [(folder / "data" / "metadata").read_bytes() for folder in (one, other)]
    return same_state and data[0] == data[1]


def _become(function: Callable[[], int], folder: Path, output: Path) -> None:
    code = 1
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        import jax

        jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        code = function()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
