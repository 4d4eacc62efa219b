"""The command, on a tiny teacher."""

import importlib.util
import json

import pytest

import sid_jax.config
from sid_jax import plan
from sid_jax.runtime.cli import command_line

COMPILERS = {"cpu:1": "jax", "tpu:v5e:2x2": "libtpu", "gpu:h100:4": "jax_plugins"}


@pytest.mark.slow
@pytest.mark.parametrize("target", COMPILERS)
def test_a_plan_is_a_table_and_a_json_file(tiny_overrides, target, tmp_path, capsys):
    if importlib.util.find_spec(COMPILERS[target]) is None:
        pytest.skip(f"{COMPILERS[target]}, the compiler for {target}, is not installed")
    file = tmp_path / "plan.json"
    arguments = ["--config=configs/digits_1step.py", f"--target={target}", f"--json={file}", *tiny_overrides]
    assert command_line.run(plan.main, [*arguments, "--config.precision.teacher=bfloat16"]) == 0
    figures = json.loads(file.read_text())
    assert figures["fits"]
    assert 0.9 < figures["flops_ratio"] < 1.2
    assert figures["bytes_per_chip"]["peak"] < figures["chip_bytes"]
    assert figures["seconds_estimate"] > 0 and 0 < figures["utilisation"] < 1
    assert int(figures["state_bytes_per_parameter"]) == 22
    assert "fits" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["--target=tpu:v5e"], "target 'tpu:v5e' is not known"),
        (["--target=cpu:1", "--json=nowhere/plan.json"], "nowhere/plan.json: no such folder"),
        (["--target=cpu:1", "--json=/"], "/ is a folder"),
        (["--target=cpu:1", f"--hlo={'x' * 5000}"], "'xxx"),
        (["--target=cpu:1", "--find-batch"], "--find-batch: cpu:1 has no memory of its own to fill"),
        (["--target=cpu:1", "--config.batch=7", "--config.accumulation=2"], "batch 7 can't be split"),
        (["--target=cpu:1", "--config.resolution=500"], "resolution 500 does not suit"),
        (["--target=cpu:1", "--config.resolution=512x500"], "resolution 512x500 does not suit"),
        ([], "--target is missing: name what to compile for, or --measure the devices that are here"),
        (["--target=cpu:1", "--updates=5"], "--updates is of --measure"),
        (["--target=cpu:1", "--process-id=0"], "--coordinator, --num-processes and --process-id are of --measure"),
        (["--measure", "--updates=0"], "--updates is 0: use 1 to 1000000"),
        (["--measure", "--find-batch"], "--find-batch plans and --measure runs"),
        (["--measure", "--target=gpu:h100:8"], "--target gpu:h100:8 is not here, where JAX has cpu:1: leave"),
        (["--measure", "--target=cpu:3"], "--target cpu:3 is not here"),
        (["--measure", "--target=tpu"], "target 'tpu' is not known"),
        (["--measure", "--num-processes=2"], "--coordinator and --process-id missing"),
    ],
)
def test_bad_input_is_one_line(arguments, line, capsys):
    assert command_line.run(plan.main, ["--config=configs/sd15_1step.py", *arguments]) == 2
    assert f"error: {line}" in capsys.readouterr().err


def test_the_batch_that_fits_is_found_by_halving():
    """A chip that holds 5 images."""
    asked = []

    def compile_and_measure(config):
        asked.append(config.batch)
        return {"fits": config.batch <= 5 * 2 * 3, "bytes_per_chip": {"peak": config.batch}}, None

    config = sid_jax.config.default()
    config.batch, config.accumulation = 6, 3
    figures, _ = plan._find_batch(config, 2, compile_and_measure, compile_and_measure(config))
    assert figures["largest_images_per_chip"] == 5
    assert asked == [6, 12, 24, 48, 36, 30]


def test_the_search_ends_where_everything_fits():
    def compile_and_measure(config):
        return {"fits": True, "bytes_per_chip": {"peak": config.batch}}, None

    config = sid_jax.config.default()
    config.batch = 1
    figures, _ = plan._find_batch(config, 1, compile_and_measure, compile_and_measure(config))
    assert figures["largest_images_per_chip"] == plan.MOST_IMAGES


def test_what_does_not_fit_has_a_code_that_no_traceback_has(monkeypatch):
    monkeypatch.setattr(plan, "_plan", lambda *_, **__: ({"fits": False}, None))
    monkeypatch.setattr(plan, "table", str)
    assert command_line.run(plan.main, ["--config=configs/sd15_1step.py", "--target=cpu:1"]) == 3
