"""Faults that are done to files: checkpoints that are damaged, and pipelines that strangers have made."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

from benchmarks.runs import UPDATES, Runs, in_a_process
from benchmarks.table import Row, so

DAMAGES = ("a bit flipped", "cut short", "half of the files deleted")
TRIALS = 20  # of each
BROKEN = 3  # checkpoints of a run
STRANGERS = 400


def damaged(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """The newest checkpoint, in each way many times, and once in a run that then goes on."""
    straight, found = runs.straight(), runs.folder / "damaged.found"
    in_a_process(lambda: found.write_text(json.dumps([_fall_back(straight, draw, how) for how in DAMAGES])) and None)
    rows = []
    for how, counts in zip(DAMAGES, json.loads(found.read_text()), strict=True):
        workdir = runs.folder / "damaged"
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(straight, workdir)
        _damage(workdir / "checkpoints" / str(UPDATES), draw, how)
        code = runs.start(workdir).wait()
        outcome = (
            f"noticed and named {counts['noticed']} times, and the one before read to the bit; a run that went on: "
            f"exit code {code}, {so(runs.same(workdir), 'equal to one that was not damaged')}"
        )
        rows.append(
            Row(
                f"newest checkpoint: {how}", "at random places", TRIALS + 1, outcome, "the updates since the one before"
            )
        )
    return rows


def not_read_back(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """Checkpoints that are damaged when Orbax has completed them, and before they are read back."""
    counts = []
    for how in DAMAGES:
        workdir = runs.folder / "not-read-back"
        shutil.rmtree(workdir, ignore_errors=True)
        code = runs.start(workdir, before=lambda how=how: _damage_before_reading_back(how, draw)).wait()
        said = (workdir / "run.log").read_text().count("what was written can't be read back")
        counts.append(so(code == 0 and said == BROKEN and runs.same(workdir), "noticed"))
    found = ", ".join(f"{how}: {count}" for how, count in zip(DAMAGES, counts, strict=True))
    outcome = f"{found}; said in a line, the earlier ones kept; the runs ended equal to one that was not damaged"
    lost = "the checkpoint, and no update"
    return [Row("damaged before it is read back", f"{BROKEN} checkpoints of a run", 3 * BROKEN, outcome, lost)]


def _damage_before_reading_back(how: str, draw: random.Random) -> None:
    """Makes reading back find the first checkpoints of this process damaged."""
    from sid_jax.runtime.run.readback import Readback

    check, left = Readback.check, [BROKEN]

    def broken(self: Readback, checkpoint: Any) -> None:
        if left[0] and checkpoint.parent.name == "checkpoints":  # not that of the trial
            left[0] -= 1
            _damage(Path(checkpoint), draw, how)
        check(self, checkpoint)

    Readback.check = broken  # type: ignore[method-assign]


def strangers(runs: Runs, draw: random.Random, times: int) -> list[Row]:
    """Files of a pipeline whose bytes or values are others."""
    found = runs.folder / "strangers.found"
    teacher = runs.folder / "tiny" / "teacher"
    in_a_process(
        lambda: found.write_text(json.dumps(_open_strangers(teacher, runs.folder / "stranger", draw))) and None
    )
    counts = json.loads(found.read_text())
    outcome = (
        f"{counts['refused']} refused in one line, {counts['opened']} opened (the change did not matter to them), "
        f"{len(counts['failed'])} otherwise; at most {counts['grown']:.0f} MB more memory"
    )
    return [
        Row(
            "files from strangers",
            "bytes and JSON values of a pipeline changed at random",
            STRANGERS,
            outcome,
            "nothing",
        )
    ]


def _fall_back(straight: Path, draw: random.Random, how: str) -> dict[str, int]:
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    from sid_jax.runtime.run.checkpoints import Checkpoints, abstract

    folder = straight.with_name("falling-back")
    noticed = 0
    steps = sorted(int(path.name) for path in (straight / "checkpoints").iterdir() if path.name.isdigit())
    expected = ocp.PyTreeCheckpointer().restore(straight / "checkpoints" / str(steps[-2]) / "state")
    for _ in range(TRIALS):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(straight / "checkpoints", folder)
        _damage(folder / str(steps[-1]), draw, how)
        checkpoints = Checkpoints(folder, read_only=True)
        restored = checkpoints.restore(abstract(jax.tree.map(jax.numpy.asarray, expected)))
        checkpoints.close()
        pairs = zip(jax.tree.leaves(restored.state), jax.tree.leaves(expected), strict=True)
        same = all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)
        noticed += same and restored.step == steps[-2]
    return {"noticed": noticed}


def _damage(checkpoint: Path, draw: random.Random, how: str) -> None:
    files = sorted(file for file in (checkpoint / "state").rglob("*") if file.is_file() and file.stat().st_size)
    if how == "half of the files deleted":
        for file in draw.sample(files, len(files) // 2):
            file.unlink()
        return
    # By their sizes: a bit of the disk is where most of the bytes are.
    (file,) = draw.choices(files, [file.stat().st_size for file in files])
    content = bytearray(file.read_bytes())
    position = draw.randrange(len(content))
    if how == "cut short":
        del content[position:]
    else:
        content[position] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def _open_strangers(teacher: Path, folder: Path, draw: random.Random) -> dict[str, Any]:
    import resource

    from sid_jax.errors import UserError
    from sid_jax.experiment.student import open_model

    open_model(str(teacher))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts: dict[str, Any] = {"refused": 0, "opened": 0, "failed": []}
    names = sorted(file.relative_to(teacher) for file in teacher.rglob("*") if file.is_file())
    for _ in range(STRANGERS):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(teacher, folder)
        file = folder / draw.choice(names)
        _change(file, draw)
        try:
            open_model(str(folder))
            counts["opened"] += 1
        except UserError as error:
            counts["refused" if "\n" not in str(error) else "failed"] += 1
        except BaseException as error:
            counts["failed"].append(f"{file.name}: {type(error).__name__}: {str(error)[:200]}")
    counts["grown"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
    return counts


def _change(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    if file.suffix == ".json" and draw.random() < 0.7:
        value = json.loads(content)
        inside = value
        while True:
            key = draw.choice(list(inside) if isinstance(inside, dict) else range(len(inside))) if inside else None
            if key is None or not isinstance(inside[key], dict | list) or not inside[key] or draw.random() < 0.3:
                break
            inside = inside[key]
        if key is not None:
            inside[key] = draw.choice([None, -1, 0, 10**12, 1e308, "x", "../../x", [], {}, [10**9], True])
        file.write_text(json.dumps(value))
        return
    header = min(len(content), 400)  # where a file of weights says what is in it
    for _ in range(draw.randint(1, 4)):
        content[draw.randrange(header if draw.random() < 0.8 else len(content))] = draw.randrange(256)
    file.write_bytes(bytes(content[: draw.choice([len(content), len(content), draw.randrange(len(content))])]))
