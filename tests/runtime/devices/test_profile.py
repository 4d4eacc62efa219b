import jax.numpy as jnp
import pytest

from sid_jax.errors import UserError
from sid_jax.runtime.devices import profile
from sid_jax.runtime.devices.profile import Profile


@pytest.fixture
def calls(monkeypatch):
    made = []
    monkeypatch.setattr(profile.jax.profiler, "start_trace", lambda folder: made.append(folder))
    monkeypatch.setattr(profile.jax.profiler, "stop_trace", lambda: made.append("stop"))
    return made


def run(profiling, first, last):
    for step in range(first, last):
        profiling.before(step)
        profiling.after(step + 1, jnp.ones(()))


def test_the_window_is_traced_once(calls):
    profiling = Profile("2:4", "folder")
    run(profiling, 0, 3)
    assert calls == ["folder"]
    run(profiling, 3, 9)
    profiling.close()
    assert calls == ["folder", "stop"]


def test_a_run_that_begins_within_it_or_ends_within_it(calls):
    profiling = Profile("2:40", "folder")
    run(profiling, 10, 20)
    profiling.close()
    assert calls == ["folder", "stop"]


def test_no_window(calls):
    run(Profile("", "folder"), 0, 5)
    assert calls == []


@pytest.mark.parametrize("window", ["3", "3:", ":3", "4:4", "5:4", "a:b", "-1:3", "1:2:3", "1" * 30 + ":2"])
def test_what_is_no_window(window):
    with pytest.raises(UserError, match="--profile is"):
        Profile(window, "folder")
