"""Faults that are done to a run from outside: signals, a full disk, other prompts, a worker that is lost."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.runs import UPDATES, Process, Runs, arguments_of, in_a_process
from benchmarks.table import Row, so
from sid_jax import export, train
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.devices.preemption import EXIT_CODE

EVERY = 4  # updates between two checkpoints


def kills(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """SIGKILL at arbitrary moments until there were `times` of them, in as many runs as that takes."""
    lost, done, ends = [], 0, []
    while done < times:
        workdir = runs.folder / f"kills-{len(ends)}"
        shutil.rmtree(workdir, ignore_errors=True)
        while True:
            process = runs.start(workdir)
            if done < times:
                # One in six is killed while it starts; the others somewhere in the next updates, or in a save.
                early, target = draw.random() < 1 / 6, process.saved() + draw.randint(1, 3 * EVERY)
                pause = draw.uniform(0, 20 if early else 1)
                alive = early or (
                    process.until(process.training) and process.until(lambda p=process, t=target: p.step() >= t)
                )
                if alive:
                    time.sleep(pause)
                if alive and not process.ended():
                    process.send(signal.SIGKILL)
                    if not early:
                        lost.append(process.step() - process.saved())
                    done += 1
                    print(f"kill {done} at update {process.step()}, saved {process.saved()}", flush=True)
                    continue
            code = process.wait()
            assert code == 0, process.output
            break
        ends.append(runs.same(workdir))
    outcome = f"{len(ends)} run{'s' * (len(ends) > 1)} ended, {_equal(all(ends))}"
    again = f"{sum(lost)} updates done again; at most {max(lost)}, with a checkpoint every {EVERY}"
    return [Row("process killed", f"`kill -9` at random moments of runs of {UPDATES} updates", done, outcome, again)]


def preemption(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """SIGTERM at arbitrary updates."""
    workdir = _fresh(runs, "preemption")
    codes, lost, told = [], [], 5
    for _ in range(told):
        process = runs.start(workdir)
        target = process.saved() + draw.randint(1, 5)
        process.until(process.training) and process.until(lambda p=process, t=target: p.step() >= t)
        codes.append(process.send(signal.SIGTERM))
        lost.append(process.step() - process.saved())
    assert runs.start(workdir).wait() == 0
    each_time = so(set(codes) == {EXIT_CODE}, f"exit code {EXIT_CODE} each time")
    outcome = f"{each_time}; {_equal(runs.same(workdir))}"
    return [Row("preemption", "SIGTERM at random updates", told, outcome, f"{sum(lost)} updates")]


def told_early_and_late(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """SIGTERM before the first update of a start is done, and while the result is measured."""
    workdir, tiny = _fresh(runs, "told"), runs.folder / "tiny"
    measuring = (
        f"--config.evaluate.metric={tiny / 'metric'}", "--config.evaluate.samples=2000",
        "--config.evaluate.teacher_steps=20",
    )  # fmt: skip
    codes, lines = [], []
    for moment in range(4):
        process = runs.start(workdir, *measuring)
        if moment < 2:
            time.sleep(draw.uniform(0.5, 2))
        elif moment == 2:
            process.until(process.training)
        else:
            process.until(lambda p=process: "measuring" in p.output.read_text().rpartition(" at update ")[2])
        codes.append(process.send(signal.SIGTERM))
        lines.append(process.output.read_text().splitlines()[-1].startswith("told to end"))
    assert runs.start(workdir, *measuring).wait() == 0
    each_time = so(set(codes) == {EXIT_CODE} and all(lines), f"one line and exit code {EXIT_CODE} each time")
    measured = so((workdir / "table.json").exists(), "the next start measures")
    outcome = f"{each_time}; {measured}; {_equal(runs.same(workdir))}"
    return [Row("told early and late", "SIGTERM while it loads, compiles and measures", 4, outcome, "0 updates")]


def terminals(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """Outputs that nobody reads any more, a full disk where the output goes, and the SIGHUP of a terminal."""
    rows = []
    for name, what in (("unread", "stdout and stderr are a pipe that nobody reads"), ("full", "they are `/dev/full`")):
        workdir = _fresh(runs, f"terminal-{name}")
        argv = arguments_of(runs.folder, workdir)
        process = Process(lambda argv=argv, name=name: _train_into(name, argv), runs.folder, workdir)
        outcome = f"{so(process.wait() == 0, 'exit code 0')}; {_equal(runs.same(workdir))}"
        rows.append(Row("its terminal gone", what, 1, outcome, "nothing; `run.log` has all lines"))
    workdir = _fresh(runs, "terminal-hung-up")
    codes = []
    for _ in range(3):
        process = runs.start(workdir)
        target = process.saved() + draw.randint(1, 5)
        process.until(process.training) and process.until(lambda p=process, t=target: p.step() >= t)
        codes.append(process.send(signal.SIGHUP))
    assert runs.start(workdir).wait() == 0
    outcome = f"{so(set(codes) == {EXIT_CODE}, f'exit code {EXIT_CODE} each time')}; {_equal(runs.same(workdir))}"
    return [*rows, Row("its terminal gone", "SIGHUP at random updates", len(codes), outcome, "0 updates")]


def _train_into(name: str, argv: list[str]) -> int:
    """Trains with an output that can't be written."""
    if name == "full":
        output = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, output = os.pipe()
        os.close(reading)
    os.dup2(output, 1)
    os.dup2(output, 2)
    return command_line.run(train.main, argv)


def kills_while_saving(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """SIGKILL while a checkpoint is being written."""
    workdir = _fresh(runs, "saves")
    lost = []
    while len(lost) < 5:
        process = runs.start(workdir)
        if process.until(process.saving):
            time.sleep(draw.uniform(0, 0.3))
            if process.saving():
                process.send(signal.SIGKILL)
                lost.append(process.step() - process.saved())
                continue
            process.send(signal.SIGKILL)
    assert runs.start(workdir).wait() == 0
    again = f"at most {max(lost)} updates done again: those since the checkpoint before"
    return [Row("killed in a save", "`kill -9` while files are written", len(lost), _equal(runs.same(workdir)), again)]


def workers_lost(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """SIGKILL of one of the two processes of a run, for which the other would wait for good."""
    waited, codes = [], []
    for lost in range(2):
        workdir = _fresh(runs, f"workers-{lost}")
        with socket.socket() as free:
            free.bind(("localhost", 0))
            coordinator = f"localhost:{free.getsockname()[1]}"
        flags = f"--coordinator={coordinator}", "--num-processes=2", "--config.mesh.fsdp=2"
        both = [runs.start(workdir, *flags, f"--process-id={i}") for i in range(2)]
        target = draw.randint(EVERY + 1, 3 * EVERY)
        assert both[lost].until(lambda p=both[lost], t=target: p.step() >= t), both[lost].output
        both[lost].send(signal.SIGKILL)
        began = time.monotonic()
        codes.append(both[1 - lost].wait())
        waited.append(time.monotonic() - began)
        assert runs.start(workdir).wait() == 0  # alone, on one device
    ended = " and ".join(f"{seconds:.0f} s (exit code {code})" for seconds, code in zip(waited, codes, strict=True))
    outcome = f"the other one ended by itself after {ended}; one process alone then went on, to the end"
    lost = "the updates since the last checkpoint"
    return [Row("worker lost", "`kill -9` of the first, and of the second, of two", 2, outcome, lost)]


def _on_disk(folder: Path) -> int:
    """The bytes that a folder takes of a disk."""
    return 512 * sum(file.stat().st_blocks for file in folder.rglob("*"))


def full_disk(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """A disk with room for two checkpoints and not for a third, which later becomes larger."""
    rows = []
    everything, checkpoints = (_on_disk(folder) for folder in (runs.straight(), runs.straight() / "checkpoints"))
    room = everything + checkpoints // 4  # a run ends with two checkpoints
    for policy in ("continue", "stop"):
        workdir, disk = _fresh(runs, f"disk-{policy}"), runs.folder / "disk"
        disk.mkdir(exist_ok=True)
        command = [
            sys.executable, "-m", "sid_jax.train", *arguments_of(runs.folder, disk / "run"),
            f"--config.on_failed_save={policy}",
        ]  # fmt: skip
        script = (
            f'mount -t tmpfs -o size={room} disk "$0" && {{ "$@"; echo "code $?"; ls "$0/run/checkpoints"; '
            f'mount -o remount,size=90m "$0"; "$@"; echo "code $?"; cp -r "$0/run" {workdir}; }}'
        )
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(runs.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script, str(disk), *command],
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
        (runs.folder / f"disk-{policy}.out").write_text(done.stdout + done.stderr)
        codes = [line for line in done.stdout.splitlines() if line.startswith("code")]
        said = "No space left on device" in done.stderr and "Traceback" not in done.stderr
        kept = " and ".join(line for line in done.stdout.splitlines() if line.isdigit())
        spoken, same = so(said, "said in one line"), _equal(runs.same(workdir))
        outcome = f"{spoken}; first {codes[0]}, with checkpoints {kept} intact; with more room {codes[1]}, {same}"
        lost = "no line of the log; what was trained after the last checkpoint that fitted is trained again"
        rows.append(Row(f"disk full, `{policy}`", "a disk for two checkpoints", 1, outcome, lost))
    return rows


def odd_names(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """Runs in folders whose names are patterns, which go on there, and in one that has to be refused."""
    names, ended = ("run[1]", "run*", "what?", "100% a#b"), []
    for name in names:
        workdir = _fresh(runs, name)
        process = runs.start(workdir)
        process.until(lambda p=process: p.saved() >= EVERY)
        process.send(signal.SIGKILL)
        code = runs.start(workdir).wait()
        out = runs.folder / "exported-odd"
        shutil.rmtree(out, ignore_errors=True)
        argv = [f"--run={workdir}", f"--step={UPDATES - EVERY}", f"--out={out}"]
        exported = in_a_process(lambda argv=argv: command_line.run(export.main, argv))
        ended.append(code == 0 and exported == 0 and runs.same(workdir))
    process = runs.start(_fresh(runs, "back\\slash"))
    refused = process.wait() == 2 and not process.step()
    outcome = f"{_equal(all(ended))}, and exported; {so(refused, 'refused in a line before the first update')}"
    done = f"{' '.join(f'`{name}`' for name in names)}, killed once; `back\\slash`"
    return [Row("a run in a folder with an odd name", done, len(names) + 1, outcome, "nothing")]


def removed(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """The folder of a run, and that of its checkpoints, removed while it trains."""
    ends = []
    for below in ("", "checkpoints"):
        workdir = _fresh(runs, f"removed-{below}")
        process = runs.start(workdir)
        process.until(lambda p=process: p.saved() >= EVERY)
        shutil.rmtree(workdir / below, ignore_errors=True)
        shutil.rmtree(workdir / below, ignore_errors=True)  # of what was written meanwhile
        code, line = process.wait(), process.output.read_text().splitlines()[-1]
        said = line.startswith("error: ") and "was removed" in line
        ends.append(code == 2 and said and not (workdir / below).exists())
    outcome = f"{so(all(ends), 'exit code 2 and a line that says so')}; nothing is made in its place"
    return [Row("folder removed while training", "the workdir; its checkpoints", 2, outcome, "what was removed")]


def second_process(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """The same command again, while the first one trains."""
    workdir, codes = _fresh(runs, "owner"), []
    first = runs.start(workdir)
    assert first.until(first.training), first.output
    names = ("config.json", "owner.json")
    before = [(workdir / name).read_bytes() for name in names]
    for _ in range(3):
        codes.append(runs.start(workdir, "--config.seed=1").wait())
    said = [line for line in first.output.read_text().splitlines() if " is in use by process " in line]
    untouched = before == [(workdir / name).read_bytes() for name in names] and not first.ended()
    assert first.wait() == 0
    refused = so(set(codes) == {2} and len(said) == 3, "exit code 2 and one line, which names the first, each time")
    outcome = f"{refused}; {so(untouched, 'nothing in the folder changed')}; the first {_equal(runs.same(workdir))}"
    return [Row("a second run in the folder", "the same command while it trains", 3, outcome, "nothing")]


def checkpoints_not_mounted(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """The folder of the checkpoints is gone, then empty, when the run goes on."""
    workdir = _fresh(runs, "mount")
    process = _ended_by(signal.SIGTERM, runs, workdir)
    away = workdir.with_name("mount-away")
    shutil.rmtree(away, ignore_errors=True)
    process.checkpoints.rename(away)
    before, codes = (workdir / "metrics.jsonl").read_bytes(), [runs.start(workdir).wait()]
    process.checkpoints.mkdir()
    codes.append(runs.start(workdir).wait())
    untouched = so(before == (workdir / "metrics.jsonl").read_bytes(), "`metrics.jsonl` as it was")
    process.checkpoints.rmdir()
    away.rename(process.checkpoints)
    assert runs.start(workdir).wait() == 0
    outcome = (
        f"{so(codes == [2, 2], 'exit code 2 and one line')}, {untouched}; mounted again {_equal(runs.same(workdir))}"
    )
    return [Row("checkpoints' disk not mounted", "their folder gone, and empty", 2, outcome, "nothing")]


def prompts(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """A prompts file that is another one, or none, when the run goes on."""
    workdir = _fresh(runs, "prompts")
    _ended_by(signal.SIGKILL, runs, workdir)
    file = runs.folder / "prompts-of-a-run.txt"
    own = (runs.folder / "tiny" / "prompts.txt").read_text()
    said = []
    for text in (own.replace("seven", "eight"), None):
        file.unlink(missing_ok=True)
        if text:
            file.write_text(text)
        process = runs.start(workdir, f"--config.prompts={file}")
        said.append(process.wait() == 2 and process.output.read_text().splitlines()[-1].startswith("error: "))
    file.write_text(own)
    assert runs.start(workdir, f"--config.prompts={file}").wait() == 0
    refused = so(all(said), "exit code 2 and one line")
    outcome = f"{refused}; with the old text at another place {_equal(runs.same(workdir))}"
    return [Row("prompts changed or gone", "between two starts", 2, outcome, "nothing")]


def another_teacher(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """Each network of the teacher has other weights of the same shapes when the run goes on; then all is moved."""
    workdir, teacher = _fresh(runs, "teacher"), runs.folder / "teacher-of-a-run"
    shutil.rmtree(teacher, ignore_errors=True)
    shutil.copytree(runs.folder / "tiny" / "teacher", teacher)
    _ended_by(signal.SIGKILL, runs, workdir, f"--config.teacher={teacher}")
    codes = []
    for weights in sorted(teacher.glob("*/*.safetensors")):
        own = weights.read_bytes()
        weights.write_bytes(own[:-64] + bytes(byte ^ 1 for byte in own[-64:]))
        codes.append(runs.start(workdir, f"--config.teacher={teacher}").wait())
        if weights.parent.name != "unet":  # an export has the student's own
            codes.append(in_a_process(lambda: _code_of_export(workdir, runs.folder / "exported-teacher")))
        weights.write_bytes(own)
    assert runs.start(workdir).wait() == 0  # from where the same teacher is too
    refused = so(set(codes) == {2}, "exit code 2 and one line, of training and of export")
    outcome = f"{refused}; with the own teacher at another place {_equal(runs.same(workdir))}"
    return [Row("another teacher", "weights of the UNet, text encoder, autoencoder", len(codes), outcome, "nothing")]


def numerics(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """Learning rates that no network survives, from an update on."""
    workdir = _fresh(runs, "numerics")
    process = runs.start(workdir)
    process.until(lambda: process.saved() >= EVERY)
    process.send(signal.SIGTERM)
    good = process.saved()
    rates = ("--config.optimizer.fake_lr=1e30", "--config.optimizer.generator_lr=1e30")
    huge = ("--resume=force", *rates, "--config.max_bad_steps=5")
    code = (process := runs.start(workdir, *huge)).wait()
    line = process.output.read_text().splitlines()[-1].removeprefix("error: ").partition(";")[0]
    kept = so(process.saved() == good, f"kept the checkpoint of update {good}")
    return [
        Row("losses not finite for good", "learning rates of 1e30", 1, f'exit code {code}: "{line}"; {kept}', "nothing")
    ]


def killed_exports(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """SIGKILL of an export."""
    straight, out = runs.straight(), runs.folder / "exported"

    def write() -> int:
        return command_line.run(export.main, [f"--run={straight}", f"--out={out}"])

    shutil.rmtree(out, ignore_errors=True)
    began = time.monotonic()
    assert in_a_process(write) == 0
    needs, whole, seen, halves = time.monotonic() - began, _sizes(out), 0, 0
    shutil.rmtree(out)
    for _ in range(8):
        in_a_process(write, kill_after=draw.uniform(0.5, 1) * needs)
        if out.exists():
            seen += 1
            halves += _sizes(out) != whole
    assert in_a_process(write) == 0
    left = len(list(runs.folder.glob(".exported*")))
    outcome = f"a folder was there after {seen}, whole but for {halves}; after one more export {left} leftovers"
    return [Row("export killed", "`kill -9` in its second half", 8, outcome, "nothing")]


def _code_of_export(workdir: Path, out: Path) -> int:
    return command_line.run(export.main, [f"--run={workdir}", f"--out={out}"])


def _fresh(runs: Runs, name: str) -> Path:
    workdir = runs.folder / name
    shutil.rmtree(workdir, ignore_errors=True)
    return workdir


def _ended_by(number: int, runs: Runs, workdir: Path, *flags: str) -> Process:
    """A run that has saved a checkpoint, and was then sent a signal."""
    process = runs.start(workdir, *flags)
    process.until(lambda: process.saved() > 0)
    process.send(number)
    return process


def _equal(same: bool) -> str:
    return so(same, "equal to the run to which nothing was done")


def _sizes(folder: Path) -> dict[str, int]:
    return {str(f.relative_to(folder)): f.stat().st_size for f in folder.rglob("*") if f.is_file()}
