"""A step that runs here: its time, its memory, and what is said where it can't."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sid_jax.config
from sid_jax import plan
from sid_jax.planning import measured, program, targets
from sid_jax.planning.compile import Compiled, Memory
from sid_jax.planning.cost import Cost
from sid_jax.planning.measured import OutOfMemory, random_arguments, run_measured
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.devices.memory import with_growth


@pytest.fixture(scope="module")
def built(tiny):
    config = sid_jax.config.default()
    config.teacher, config.resolution, config.batch = str(tiny / "teacher"), 32, 8
    return program.build_program(config, jax.devices()[:1])


def figures_of(tmp_path, *arguments):
    """What the command writes; it says that it fits."""
    file = tmp_path / "plan.json"
    arguments = ["--config=configs/digits_1step.py", "--measure", "--updates=2", f"--json={file}", *arguments]
    assert command_line.run(plan.main, arguments) == 0
    return json.loads(file.read_text())


def test_the_tiny_digits_on_this_cpu(tiny_overrides, tmp_path, capsys):
    """What anyone runs first. Few bytes are found in pages that the process has already."""
    figures = figures_of(tmp_path, *tiny_overrides)
    found = figures["measured"]
    assert figures["bytes_per_chip"]["arguments"] / 2 < found["peak_bytes_per_chip"]
    assert found["peak_by"] == "the process" and found["utilisation"] is None
    assert found["updates"] == len(found["seconds_of_each"]) == 2
    assert min(found["seconds_of_each"]) <= found["seconds"] <= max(found["seconds_of_each"])
    assert found["images_per_second"] == pytest.approx(8 / found["seconds"])
    said = capsys.readouterr().out
    assert (
        "devices      cpu:1" in said and "\nmeasured       2 updates" in said and "ms an update, the median of" in said
    )
    assert "time           no estimate" in said


@pytest.mark.slow
def test_the_digits_on_this_cpu(tmp_path):
    """The process takes what the compiled program says, but for a fifth."""
    figures = figures_of(tmp_path)
    assert figures["measured"]["peak_bytes_per_chip"] == pytest.approx(figures["bytes_per_chip"]["peak"], rel=0.2)


def test_arguments_are_random_and_begin_a_run(built):
    state, frozen, batch = made = random_arguments(built.arguments)
    for array, expected in zip(*map(jax.tree.leaves, (made, built.arguments)), strict=True):
        assert (array.shape, array.dtype, array.sharding) == (expected.shape, expected.dtype, expected.sharding)
        assert np.isfinite(np.asarray(array, np.float32)).all()
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((state.step, state.fake_optimizer, batch)))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.generator_optimizer))
    for leaf in jax.tree.leaves((state.generator, state.fake, state.ema, frozen.base)):
        assert leaf.size < 100 or 0.01 < np.std(np.asarray(leaf, np.float32)) < 0.03


def compiled(run):
    cost = Cost(flops=1e9, seconds=1.0)
    return Compiled(Memory(1, 1, 1, 5_000_000_000, 6_000_000_000), cost, cost, None, None, 1.0, "", run)


def test_the_first_updates_are_dropped(built, monkeypatch):
    times = iter(range(100))
    monkeypatch.setattr(measured, "time", SimpleNamespace(perf_counter=lambda: next(times) ** 2))
    ran = []

    def step(state, frozen, batch):
        ran.append(int(state.step))
        return dataclasses.replace(state, step=state.step + 1), {"fake_loss": jnp.float32(0)}

    found = run_measured(built, compiled(step), 3)
    assert ran == [0, 1, 2, 3, 4, 5]  # two are dropped, three timed, and in the last one memory is looked at
    assert found.each == (1, 5, 9) and found.seconds == 5
    assert (found.device, found.processes, found.peak_by) == ("cpu", 1, "the process")


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), MemoryError()])
def test_out_of_memory_says_what_the_plan_says(built, error, monkeypatch, capsys, tmp_path):
    def step(*arguments):
        raise error

    with pytest.raises(OutOfMemory, match=r"^out of memory: the compiled program needs 6\.00 GB a chip, and cpu has "):
        run_measured(built, compiled(step), 3)

    def run(*arguments):
        raise OutOfMemory("out of memory: so much")

    monkeypatch.setattr(plan, "run_measured", run)
    monkeypatch.setattr(plan, "compile_for", lambda *_, **__: compiled(step))
    lowered = SimpleNamespace(lower=lambda *arguments: None)
    monkeypatch.setattr(plan, "build_program", lambda *_: dataclasses.replace(built, step=lowered))
    file = tmp_path / "plan.json"
    assert command_line.run(plan.main, ["--config=configs/sd15_1step.py", "--measure", f"--json={file}"]) == 3
    assert capsys.readouterr().err == "error: out of memory: so much\n"
    assert "measured" not in json.loads(file.read_text())


def test_other_errors_of_a_device_are_no_lack_of_memory(built):
    def step(*arguments):
        raise jax.errors.JaxRuntimeError("INTERNAL: a defect")

    with pytest.raises(jax.errors.JaxRuntimeError, match="a defect"):
        run_measured(built, compiled(step), 3)


def test_growth_is_that_of_the_function_alone():
    """Neither what was there, nor what malloc keeps, nor what is gone when the function returns."""
    size = 2**26
    held = np.ones(size, np.uint8)
    freed = [np.ones(2**16, np.uint8) for _ in range(400)]  # small enough for malloc to keep
    del freed

    def function():
        large, small = np.ones(size, np.uint8), [np.ones(2**16, np.uint8) for _ in range(400)]
        return len(large) + len(small)

    result, growth = with_growth(function)
    assert result == size + 400 and len(held) == size
    assert growth == pytest.approx(size + 400 * 2**16, rel=0.1)


def device(platform, kind, **more):
    return SimpleNamespace(platform=platform, device_kind=kind, **more)


@pytest.mark.parametrize(
    ("devices", "name", "flops"),
    [
        ([device("gpu", "NVIDIA H100 80GB HBM3")] * 8, "gpu:h100:8", 989e12),
        ([device("gpu", "NVIDIA GeForce RTX 4090")], "gpu:rtx4090:1", 165e12),
        ([device("gpu", "NVIDIA L4")], "1 x NVIDIA L4", 121e12),
        ([device("gpu", "NVIDIA L40S")], "1 x NVIDIA L40S", 362e12),
        ([device("gpu", "NVIDIA L40")], "1 x NVIDIA L40", None),
        ([device("cpu", "cpu")] * 2, "cpu:2", None),
        ([device("tpu", "TPU v5 lite", coords=(x, y, 0)) for x in range(2) for y in range(4)], "tpu:v5e:2x4", 197e12),
        ([device("tpu", "TPU v5p", coords=(x, 0, z)) for x in range(2) for z in range(2)], "tpu:v5p:2x1x2", 459e12),
        ([device("tpu", "TPU v4", coords=(0, 0, 0))], "tpu:v4:1x1x1", 275e12),
    ],
)
def test_what_is_here_has_the_name_of_a_target(devices, name, flops):
    here = targets._present(devices)
    assert (here.name, here.count, here.open()) == (name, len(devices), devices)
    assert here.chip.flops == flops if flops else not here.chip.known
    if not name.startswith("1 x"):
        assert targets.parse(name).chip == here.chip


@pytest.mark.slow
def test_processes_measure_together(tiny_overrides):
    """Two of them with two devices each: the first prints, and memory is that of one device."""
    with socket.socket() as free:
        free.bind(("", 0))
        place = f"--coordinator=localhost:{free.getsockname()[1]}"
    arguments = ["--config=configs/digits_1step.py", "--measure", "--updates=2", *tiny_overrides, place]
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "sid_jax.plan", *arguments, "--num-processes=2", f"--process-id={number}",
             "--config.mesh.fsdp=2"], env=os.environ | flags, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    (first, said), (other, _) = (process.communicate() for process in started)
    assert [process.returncode for process in started] == [0, 0], said
    assert "measured       2 updates" in first and "on 4 x cpu in 2 process(es)" in first and "GB a chip" in first
    # jaxlib's Gloo writes there itself: "[Gloo] Rank 3 is connected to 3 peer ranks".
    assert not [line for line in other.splitlines() if line and not line.startswith("[Gloo]")]
