"""One run on other meshes and in several processes: the same losses, and everything that it writes, once."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from training_runs import metrics_of

from sid_jax import sample, train

CONFIG = "--config=configs/digits_1step.py"
TWO_BY_FOUR = "--config.mesh.data=2", "--config.mesh.fsdp=4"


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """Runs training in processes with simulated devices, its parameters sharded however small; returns what it said."""
    folder = tmp_path_factory.mktemp("first")
    # What Python imports first in every process.
    (folder / "sitecustomize.py").write_text("from sid_jax.runtime.devices import mesh\n\nmesh.SMALL = 64\n")

    def run(processes, devices, *arguments):
        paths = {"PYTHONPATH": f"{folder}:{os.getcwd()}", "PYTHON": sys.executable}
        command = ["launch/local.sh", str(processes), str(devices), *arguments]
        done = subprocess.run(command, env=os.environ | paths, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    return run


def pictures_of(folder):
    """Of the student of a run. Not its parameters: where a gradient is 0 but for rounding, Adam follows its sign."""
    sample.main([f"--run={folder}", "--prompts=a handwritten seven", "--n=4", f"--out={folder / 'pictures'}"])
    return np.asarray(Image.open(folder / "pictures/grid.png"), np.int32)


def difference(found, expected, names=("fake_loss", "generator_loss")):
    """The largest relative difference of two runs in any line."""
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    a, b = (np.array([[line[name] for name in names] for line in lines]) for lines in (found, expected))
    return np.max(np.abs(a / b - 1))


@pytest.mark.slow
def test_two_processes_are_one_run(launch, tiny_arguments, tmp_path):
    """Prompts, text, state, losses, pictures, logs, checkpoints, and going on from them."""
    train.main(tiny_arguments)
    shared = "--config.mesh.fsdp=2", "--config.text.precompute=true", "--config.evaluate.pictures=4"
    arguments = *tiny_arguments, f"--workdir={tmp_path / 'both'}", *shared
    halfway = launch(2, 1, *arguments, "--config.images=32")
    done = launch(2, 1, *arguments)
    assert difference(metrics_of(tmp_path / "both"), metrics_of(tmp_path / "run")) < 1e-5

    assert Image.open(tmp_path / "both/side_by_side.png").width > 2 * 2 * 96  # of both, two images in a row
    assert "Teacher beside student" in (tmp_path / "both/report.html").read_text()

    # What they saved together, one process with one device reads.
    both, one = (pictures_of(tmp_path / run) for run in ("both", "run"))
    assert np.max(np.abs(both - one)) <= 2 and np.std(one) > 20

    # The first process wrote, and the other did not.
    assert halfway.stderr.count("starting at update 0 of 4") == done.stderr.count("going on at update 4 of 6") == 1
    assert done.stderr.count("2 cpu device(s) in 2 process(es)") == done.stderr.count("done: 6 updates") == 1
    both, one = ({file.name for file in (tmp_path / run / "samples").iterdir()} for run in ("both", "run"))
    assert both == one | {"student-000004.png"}
    assert len(list((tmp_path / "both/text").iterdir())) == 1


@pytest.mark.slow
def test_two_processes_make_the_table_together(launch, finished, tiny_overrides, tmp_path):
    done = launch(2, 4, CONFIG, f"--workdir={tmp_path / 'run'}", *tiny_overrides, *TWO_BY_FOUR)
    assert difference(metrics_of(tmp_path / "run"), metrics_of(finished)) < 1e-4
    assert done.stdout.count("seconds / 1,000 images") == 1
    table, expected = (json.loads((folder / "table.json").read_text()) for folder in (tmp_path / "run", finished))
    for row in ("teacher", "student"):
        np.testing.assert_allclose(table[row]["frechet_distance"], expected[row]["frechet_distance"], rtol=1e-2)


@pytest.fixture(scope="module")
def curve(launch, pipelines, tiny, tmp_path_factory):
    """The metrics of ten updates of a tiny Stable Diffusion in processes, with devices, on a mesh.

    The generator's loss is of the difference of teacher and fake network, which begin as one. Its rounding is that of
    their predictions, so the learning rates are the digits', which take the two apart in the first update.
    """

    def run(processes, devices, data, fsdp):
        folder = tmp_path_factory.mktemp("curve") / "run"
        launch(
            processes, devices, "--config=configs/sd15_1step.py", f"--workdir={folder}",
            f"--config.teacher={pipelines['sd']}", f"--config.prompts={tiny / 'prompts.txt'}", "--config.resolution=16",
            f"--config.mesh.data={data}", f"--config.mesh.fsdp={fsdp}", "--config.images=160", "--config.batch=16",
            "--config.optimizer.fake_lr=6e-4", "--config.optimizer.generator_lr=1.5e-4", "--config.log_every=1",
            "--config.precision.compute=float32", "--config.precision.teacher=float32",
        )  # fmt: skip
        return metrics_of(folder)

    return run


@pytest.fixture(scope="module")
def on_one_device(curve):
    return curve(1, 1, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "devices", "data", "fsdp"), [(1, 8, 8, 1), (1, 8, 2, 4), (1, 8, 1, 8), (2, 4, 2, 4), (2, 4, 1, 8)]
)
def test_the_curve_does_not_depend_on_the_mesh(curve, on_one_device, processes, devices, data, fsdp):
    found = curve(processes, devices, data, fsdp)
    losses = difference(found, on_one_device)
    norms = difference(found, on_one_device, ("fake_grad_norm", "generator_grad_norm"))
    print(f"| {processes} | {devices} | {data} x {fsdp} | {losses:.1e} | {norms:.1e} |")
    assert losses < 1e-5
