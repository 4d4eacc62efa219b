import math
import time

import pytest

from sid_jax.errors import UserError
from sid_jax.runtime.run.retention import Keep, Schedule

STEPS = [10, 20, 30, 40, 50, 60]
VALUES = {10: 5.0, 20: 1.0, 30: 3.0, 40: math.nan, 60: 2.0}


@pytest.mark.parametrize(
    "keep, kept",
    [
        (Keep(1), {60}),
        (Keep(2), {50, 60}),
        (Keep(9), set(STEPS)),
        (Keep(1, every=20), {20, 40, 60}),
        (Keep(1, best=1, metric="fid"), {20, 60}),
        (Keep(1, best=2, metric="clip", mode="max"), {10, 30, 60}),
        (Keep(1, every=50, best=9, metric="fid"), {10, 20, 30, 50, 60}),
    ],
)
def test_which_stay(keep, kept):
    assert keep.kept(STEPS, VALUES) == kept


@pytest.mark.parametrize(
    "values, says",
    [
        ({"newest": 0}, "keep_checkpoints is 0: keep at least 1"),
        ({"every": -1}, "keep_every is -1"),
        ({"best": -1}, "keep_best is -1"),
        ({"best": 1}, "keep_best_by is empty"),
        ({"mode": "least"}, "keep_best_mode is 'least': use min or max"),
    ],
)
def test_what_makes_no_sense(values, says):
    with pytest.raises(UserError, match=says):
        Keep(**values)


def test_what_stays_is_the_configs():
    keys = {"newest": "checkpoints", "every": "every", "best": "best", "metric": "best_by", "mode": "best_mode"}
    values = {"newest": 3, "every": 10, "best": 2, "metric": "fid", "mode": "max"}
    settings = {f"keep_{keys[name]}": value for name, value in values.items()}
    assert Keep.from_config(settings) == Keep(**values)


def test_due_by_updates():
    schedule = Schedule(5)
    schedule.tick()
    assert [step for step in range(1, 16) if schedule.due(step)] == [5, 10, 15]


def test_due_by_minutes_too(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    schedule = Schedule(100, minutes=2)
    now[0] = 119
    schedule.tick()
    assert not schedule.due(1)
    now[0] = 120
    assert not schedule.due(2)  # found out at the next tick
    schedule.tick()
    assert schedule.due(3)
    schedule.saved()
    schedule.tick()
    assert not schedule.due(4)


def test_one_that_was_missed_is_due_at_once():
    schedule = Schedule(100)
    schedule.missed()
    assert schedule.due(101)
    schedule.tick()
    assert schedule.due(102)
    schedule.saved()
    assert not schedule.due(103)
