"""Metrics between two lines of the log."""

import json
import math

import jax.numpy as jnp

from sid_jax.runtime.run.window import Window


def metrics(loss=1.0, dropped=0.0):
    values = {"fake_loss": loss, "generator_loss": 2.0, "dropped_fake": dropped, "dropped_generator": 0.0}
    return {name: jnp.float32(value) for name, value in (values | {"nonfinite_grads": 3.0}).items()}


def test_counts_are_summed_and_the_rest_is_averaged():
    window = Window(batch=8)
    window.add(metrics(1.0, dropped=1.0))
    window.add(metrics(4.0, dropped=2.0))
    assert window.summary() == {
        "fake_loss": 2.5, "generator_loss": 2.0, "dropped_fake": 3.0, "dropped_generator": 0.0, "nonfinite_grads": 6.0,
    }  # fmt: skip


def test_bad_steps_are_those_in_a_row_up_to_the_last():
    window = Window(batch=8)
    for loss in (math.nan, 1.0, math.inf, math.nan):
        window.add(metrics(loss))
    assert window.bad_steps == 2
    window.restart()
    window.add(metrics(math.nan))
    assert window.bad_steps == 3
    window.add(metrics())
    assert window.bad_steps == 0


def test_a_step_without_a_sample_is_bad():
    window = Window(batch=8)
    window.add(metrics(0.0, dropped=7.0))
    assert window.bad_steps == 0
    window.add(metrics(0.0, dropped=8.0))
    assert window.bad_steps == 1


def test_pending_goes_on_in_another_process():
    window, straight = Window(batch=8), Window(batch=8)
    for w in (window, straight):
        w.add(metrics(math.nan))
        w.restart()
        w.add(metrics(5.0))
        w.add(metrics(0.1))
    resumed = Window(8, json.loads(json.dumps(window.pending())))
    for w in (resumed, straight):
        w.add(metrics(7.0))
    assert resumed.summary() == straight.summary()
    assert resumed.bad_steps == straight.bad_steps
