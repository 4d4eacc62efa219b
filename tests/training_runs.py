"""What tests do with runs of the train command: read them, compare them, and interrupt them."""

import json

import jax
import numpy as np
import pytest

from sid_jax import train
from sid_jax.experiment.student import open_run
from sid_jax.runtime.run.saving import Saving


def metrics_of(workdir):
    """The lines of a run's log."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def student_bits(workdir):
    """The bytes of each parameter of the run's newest student."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(open_run(str(workdir)).params)]


def train_until_interrupted(arguments, step, monkeypatch):
    """Trains with `arguments`, and is interrupted where the log has the line of update `step`."""

    def interrupt(self, window, reached):
        if reached == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Saving, "stop_if_bad", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train.main(arguments)
