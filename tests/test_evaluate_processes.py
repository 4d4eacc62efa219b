"""`evaluate --protocol` and `reference`: by two processes as by one, and killed at any moment as if never killed."""

import json
import shutil
import signal

import numpy as np
import pytest
from PIL import Image
from several_processes import started
from small_features import write_small_reference

from sid_jax.evaluation.references import read_reference

pytestmark = pytest.mark.slow

COUNT, BATCH = 60, 8  # images, and those that a device makes at a time: the last batch is not full

PROGRAM = """
import importlib, os, re, signal, sys
sys.path.insert(0, "tests")
from small_features import in_place_of_inception
from sid_jax.evaluation.saved import SavedMeasurement
from sid_jax.runtime.cli import command_line

command, event, name, number, who = sys.argv[1:6]
left = int(number)

def kill(happening, about):
    global left
    if happening == event and any(re.search(name, os.path.basename(each)) for each in about if isinstance(each, str)):
        if event == "open" and not about[2] & (os.O_WRONLY | os.O_RDWR):
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

if event and (who == "all" or f"--process-id={who}" in sys.argv):
    sys.addaudithook(kill)
SavedMeasurement.due = lambda saved: True
main = importlib.import_module(f"sid_jax.{command}").main
with in_place_of_inception():
    sys.exit(command_line.run(main, sys.argv[6:]))
"""
NEVER = "", "", 0

KILLED = [
    ("os.mkdir", "^out$", 1),
    ("open", "captions", 1),
    ("os.rename", "dump.json", 1),
    ("os.rename", r"^000005\.png", 1),
    ("open", "state-", 1),
    ("open", r"\.png", 13),
    ("os.rename", "state-", 2),
    ("os.rename", r"\.png", 20),
    ("os.rename", "values-", 1),
    ("os.remove", "^state-", 1),
]
"""Before which opening, renaming or removing of a file of that name a process is killed: each a start of its own."""


@pytest.fixture
def run(common, tmp_path):
    """Runs a command by so many processes to its end, or until one of them is killed before something happens."""

    def together(command, *flags, count=1, killed=NEVER, who="all"):
        cache = {"JAX_COMPILATION_CACHE_DIR": common / "compiled", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": 0.2}
        environment = {name: str(value) for name, value in cache.items()}
        with started(PROGRAM, [command, *killed, who, *flags], tmp_path, count, environment) as processes:
            if killed != NEVER:  # the others would wait for it for a while
                victim = processes[0 if who == "all" else int(who)]
                assert victim.ended() == -signal.SIGKILL, victim.said()
                return
            codes = [each.ended() for each in processes]
            assert not any(codes), [each.said() for each in processes]

    return together


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return write_small_reference(tmp_path_factory.mktemp("reference") / "real.npz")


@pytest.fixture
def measure(run, finished, tiny, reference, tmp_path):
    """Measures images of the tiny run, which are left in a folder; returns the report, if there is one."""

    def of_run(name, *flags, **how):
        run(
            "evaluate", f"--run={finished}", "--protocol=coco30k", "--metrics=fid", f"--reference={reference}",
            f"--prompts={tiny / 'prompts.txt'}", f"--samples={COUNT}", f"--batch={BATCH}",
            f"--dump={tmp_path / name}", f"--json={tmp_path / f'{name}.json'}", *flags, **how,
        )  # fmt: skip
        table = tmp_path / f"{name}.json"
        return json.loads(table.read_text())["rows"]["student"][f"fid_{COUNT}"] if table.exists() else None

    return of_run


def check_alike(found, expected, rtol):
    for key in ("value", "standard_error", "unbiased"):
        np.testing.assert_allclose(found[key], expected[key], rtol=rtol)


def check_same_files(folder, expected):
    names = sorted(file.name for file in expected.iterdir())
    assert sum(name.endswith(".png") for name in names) == COUNT
    assert sorted(file.name for file in folder.iterdir()) == names
    for name in names:
        if name != "dump.json":
            assert (folder / name).read_bytes() == (expected / name).read_bytes(), name


def test_two_processes_measure_what_one_does_and_go_on_when_one_is_killed(measure, tmp_path):
    one = measure("one")
    check_alike(measure("two", count=2), one, 1e-6)
    check_same_files(tmp_path / "two", tmp_path / "one")
    for who, killed in ((0, KILLED[6]), (1, ("open", r"\.png", 10)), (0, KILLED[8])):
        assert measure("cut", f"--out={tmp_path / 'out'}", count=2, killed=killed, who=who) is None
    check_alike(measure("cut", f"--out={tmp_path / 'out'}", count=2), one, 1e-6)
    check_same_files(tmp_path / "cut", tmp_path / "one")
    assert [file.suffix for file in (tmp_path / "out").iterdir()] == [".json"]


def test_killed_ten_times_it_ends_as_one_that_was_not(measure, tmp_path):
    whole = measure("whole")
    for killed in KILLED:
        assert measure("cut", f"--out={tmp_path / 'out'}", killed=killed) is None
    check_alike(measure("cut", f"--out={tmp_path / 'out'}"), whole, 1e-9)
    check_same_files(tmp_path / "cut", tmp_path / "whole")
    assert [file.suffix for file in (tmp_path / "out").iterdir()] == [".json"]

    shutil.rmtree(tmp_path / "cut")  # what was measured is no reason not to write the images again
    for killed in (("os.remove", "^values-", 1), NEVER):
        measure("cut", f"--out={tmp_path / 'out'}", killed=killed)
    check_same_files(tmp_path / "cut", tmp_path / "whole")


def test_pictures_measured_by_two_processes(run, reference, tmp_path):
    """With precision and recall, whose features the first process keeps."""
    pictures(tmp_path / "pictures", COUNT)
    found = []
    for count in (1, 2):
        table = tmp_path / f"{count}.json"
        run(
            "evaluate", f"--images={tmp_path / 'pictures'}", "--protocol=imagenet64", f"--reference=fid={reference}",
            f"--reference=pr={reference}", f"--json={table}", count=count,
        )  # fmt: skip
        found.append(json.loads(table.read_text())["rows"]["images"])
    assert found[0].keys() == found[1].keys() >= {f"fid_{COUNT}", f"precision_{COUNT}", f"recall_{COUNT}"}
    check_alike(found[1][f"fid_{COUNT}"], found[0][f"fid_{COUNT}"], 1e-6)
    assert found[1][f"recall_{COUNT}"] == found[0][f"recall_{COUNT}"]


def test_a_reference_by_two_processes_and_by_one_that_is_killed(run, tmp_path):
    pictures(tmp_path / "pictures", COUNT)
    flags = f"--images={tmp_path / 'pictures'}", "--protocol=coco30k-train", "--features=20", f"--batch={BATCH}"
    out = {name: tmp_path / name / "real.npz" for name in ("one", "two", "cut")}
    run("reference", *flags, f"--out={out['one']}")
    run("reference", *flags, f"--out={out['two']}", count=2)
    for killed in (("open", "state-", 1), ("os.rename", "state-", 3), ("open", "real", 1), ("os.rename", "real", 1)):
        run("reference", *flags, f"--out={out['cut']}", killed=killed)
        assert not out["cut"].exists()
    run("reference", *flags, f"--out={out['cut']}")
    one = read_reference(out["one"])
    for name in ("two", "cut"):
        other = read_reference(out[name])
        assert other.count == COUNT and other.about == one.about
        np.testing.assert_array_equal(other.features, one.features)
        for ours, theirs in zip(other.statistics, one.statistics, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
        assert [file.name for file in out[name].parent.iterdir()] == ["real.npz"]


def pictures(folder, count):
    """So many of 64 px."""
    folder.mkdir()
    for number, image in enumerate(np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)):
        Image.fromarray(image).save(folder / f"{number}.png")
