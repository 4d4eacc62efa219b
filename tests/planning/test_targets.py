"""Names of targets, and what they need."""

import importlib.util

import pytest

from sid_jax.errors import UserError
from sid_jax.planning import targets


@pytest.mark.parametrize(
    "name, platform, count",
    [("tpu:v5e:2x4", "tpu", 8), ("tpu:v5p:2x2x2", "tpu", 8), ("gpu:h100:8", "gpu", 8), ("gpu:rtx4090:1", "gpu", 1)],
)
def test_names(name, platform, count):
    target = targets.parse(name)
    assert (target.platform, target.count) == (platform, count)
    assert target.chip.memory > 15e9


@pytest.mark.parametrize("name", ["", "tpu", "tpu:v5e", "tpu:v9:2x2", "tpu:v5e:2x", "gpu:h100:0", "gpu:h100:x", "cpu"])
def test_another_name_is_an_error_that_lists_the_names(name):
    with pytest.raises(UserError, match="use tpu:v4"):
        targets.parse(name)


@pytest.mark.parametrize(
    "name, packages, advice",
    [("tpu:v5e:2x4", "libtpu", r"jax\[tpu\]"), ("gpu:h100:8", "jax_plugins.xla_cuda", r"jax\[cuda12\]")],
)
def test_a_missing_compiler_is_one_line_that_says_what_to_install(monkeypatch, name, packages, advice):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted: None if wanted.startswith(packages) else find(wanted)
    )
    with pytest.raises(UserError, match=rf'pip install "{advice}==') as error:
        targets.parse(name).open()
    assert "\n" not in str(error.value)


def test_more_cpus_than_there_are_is_an_error():
    with pytest.raises(UserError, match="xla_force_host_platform_device_count=999"):
        targets.parse("cpu:999").open()


def test_no_plugin_at_all_is_one_line_too(monkeypatch):
    def find(module):
        raise ModuleNotFoundError("No module named 'jax_plugins'")

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(UserError, match=r"pip install .jax\[cuda12\]"):
        targets.parse("gpu:h100:8").open()


@pytest.mark.parametrize(
    "name", ["tpu:v5e:0x0", "gpu:h100:-1", "gpu:h100:99999999999999999999", "tpu:v5e:1000000x1000000", "cpu:100000"]
)
def test_numbers_of_chips_that_nobody_has(name):
    with pytest.raises(UserError, match=r"is not known|at most 65536"):
        targets.parse(name)


@pytest.mark.parametrize("name, options", [("tpu:v5e:1x1", {"chips_per_host_bounds": (1, 1, 1)}), ("tpu:v5e:2x4", {})])
def test_one_chip_is_a_machine_of_one_chip(monkeypatch, name, options):
    """libtpu takes machines for such of four chips, and knows no part of one."""
    asked = {}
    monkeypatch.setattr(targets, "_installed", lambda module: True)
    monkeypatch.setattr(targets, "_topology", lambda platform, name, count, **given: asked.update(given) or [])
    for key in ("TPU_SKIP_MDS_QUERY", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        monkeypatch.setenv(key, "1")
    targets.parse(name).open()
    assert asked == options
