"""When checkpoints are saved, and what happens when one can't be: with checkpoints in memory."""

import logging

import jax.numpy as jnp
import pytest

from sid_jax.errors import UserError
from sid_jax.runtime.run.checkpoints import SaveError
from sid_jax.runtime.run.saving import Saving, SavingPolicy
from sid_jax.runtime.run.window import Window

SETTINGS = {"seed": 3}


class InMemory:
    """Checkpoints that are complete when they are waited for; those in `failing` can't be written."""

    saving = False

    def __init__(self, failing=()):
        self.steps, self._begun, self._failing = [], [], failing

    def save(self, step, state, position, config, metrics):
        assert config is SETTINGS
        self._begun.append(step)

    def wait(self):
        begun, self._begun = self._begun, []
        for step in begun:
            if step in self._failing:
                raise self.save_error(step, OSError(28, "no space"))
            self.steps.append(step)
        return 2.5 if begun else None

    def save_error(self, step, error):
        return SaveError(f"the checkpoint of update {step} can't be written: {error.strerror}; newest: {self.latest()}")

    def latest(self):
        return max(self.steps, default=None)


class Log:
    """A log that can be written while `full` is false."""

    full = False

    def flush(self):
        if self.full:
            raise OSError(28, "No space left on device")


def saving_with(checkpoints, log=None, **policy):
    return Saving(checkpoints, log or Log(), SavingPolicy(every=2, **policy), SETTINGS)


def window(loss=1.0):
    made = Window(batch=8)
    names = ("fake_loss", "generator_loss", "dropped_fake", "dropped_generator")
    made.add({name: jnp.float32(loss if "loss" in name else 0) for name in names})
    return made


def run(saving, steps, bad=()):
    for step in range(1, steps + 1):
        if saving.due(step) or step == steps:
            saving.save(step, None, {}, window(float("nan") if step in bad else 1.0), {})


def test_how_long_a_checkpoint_took_is_logged_once():
    saving = saving_with(InMemory())
    saving.save(2, None, {}, window(), {})
    assert saving.poll() == {"checkpoint_seconds": 2.5}
    assert saving.poll() == {}


def test_a_run_goes_on_without_a_checkpoint_that_cannot_be_written(caplog):
    checkpoints = InMemory(failing=[4])
    saving = saving_with(checkpoints)
    with caplog.at_level(logging.WARNING, logger="sid_jax"):
        run(saving, 7)
        saving.finish(7)
    assert checkpoints.steps == [2, 6, 7]
    assert caplog.messages == ["the checkpoint of update 4 can't be written: no space; newest: 2; the run goes on"]


def test_each_checkpoint_is_told_when_it_is_complete():
    told = []
    saving = Saving(InMemory(failing=[4]), Log(), SavingPolicy(every=2), SETTINGS, completed=told.append)
    run(saving, 6)
    assert told == [2]  # 6 is still being written
    saving.finish(6)
    assert told == [2, 6]


def test_or_stops():
    saving = saving_with(InMemory(failing=[4]), on_failed_save="stop")
    with pytest.raises(
        UserError, match=r"^the checkpoint of update 4 can't be written: no space; newest: 2; make space"
    ):
        run(saving, 7)


def test_no_checkpoint_without_the_lines_before_it(caplog):
    checkpoints, log = InMemory(), Log()
    saving = saving_with(checkpoints, log)
    log.full = True
    saving.save(2, None, {}, window(), {})
    log.full = False
    saving.save(4, None, {}, window(), {})
    saving.finish(4)
    assert checkpoints.steps == [4]
    said = "the checkpoint of update 2 can't be written: No space left on device; newest: None; the run goes on"
    assert said in caplog.text


def test_no_checkpoint_while_losses_are_not_finite():
    checkpoints = InMemory()
    saving = saving_with(checkpoints)
    run(saving, 7, bad=[4, 5])
    saving.finish(7)
    assert checkpoints.steps == [2, 6, 7]


def test_a_run_that_ends_without_its_checkpoint_says_so():
    saving = saving_with(InMemory(failing=[7]))
    run(saving, 7)
    with pytest.raises(UserError, match=r"^update 7 was reached and has no checkpoint, .* the newest is of update 6"):
        saving.finish(7)


def test_a_run_whose_losses_stay_non_finite_ends_and_says_what_to_lower():
    checkpoints = InMemory()
    saving = saving_with(checkpoints, max_bad_steps=2)
    run(saving, 2)
    saving.finish(2)
    bad = window(float("nan"))
    saving.stop_if_bad(bad, 3)
    bad.add(bad.pending()["steps"][0])
    with pytest.raises(UserError) as caught:
        saving.stop_if_bad(bad, 4)
    assert str(caught.value) == (
        "the losses were not finite for 2 updates, from update 3 to 4; the newest checkpoint, of update 2, is good: "
        "lower optimizer.fake_lr and optimizer.generator_lr, or set precision.compute to float32"
    )


def test_a_run_that_never_had_finite_losses_is_not_told_to_lower_rates():
    saving = saving_with(InMemory(), max_bad_steps=2)
    bad = window(float("nan"))
    saving.stop_if_bad(bad, 1)
    bad.add(bad.pending()["steps"][0])
    with pytest.raises(
        UserError, match=r"^the losses were not finite from the first update on, .* the teacher"
    ) as caught:
        saving.stop_if_bad(bad, 2)
    assert "_lr" not in str(caught.value)


def test_the_policy_is_the_configs():
    settings = {
        "checkpoint_every": 7,
        "checkpoint_minutes": 1.5,
        "max_bad_steps": 3,
        "on_failed_save": "stop",
        "keep_best": 0,
        "keep_best_by": "fid_10k",
        "seed": 1,
    }
    assert SavingPolicy.from_config(settings) == SavingPolicy(7, 1.5, 3, "stop")
    assert SavingPolicy.from_config(settings | {"keep_best": 2}).best_by == "fid_10k"
