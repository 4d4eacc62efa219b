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
    "name, package, advice",
    [("tpu:v5e:2x4", "libtpu", r"jax\[tpu\]"), ("gpu:h100:8", "jax_plugins.xla_cuda12", r"jax\[cuda12\]")],
)
def test_a_missing_compiler_is_one_line_that_says_what_to_install(monkeypatch, name, package, advice):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == package else find(wanted))
    with pytest.raises(UserError, match=rf'pip install "{advice}==') as error:
        targets.parse(name).open()
    assert "\n" not in str(error.value)


def test_more_cpus_than_there_are_is_an_error():
    with pytest.raises(UserError, match="xla_force_host_platform_device_count=999"):
        targets.parse("cpu:999").open()
