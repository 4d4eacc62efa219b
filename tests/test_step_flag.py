"""`--step`: a checkpoint of a run other than the newest."""

import jax
import numpy as np
import pytest

from sid_jax import evaluate, export, sample
from sid_jax.errors import UserError
from sid_jax.experiment.student import open_run


def test_the_student_of_a_checkpoint(finished):
    newest, earlier = open_run(str(finished)), open_run(str(finished), step=3)
    assert (newest.step, earlier.step, open_run(str(finished), step=6).step) == (6, 3, 6)
    pairs = zip(jax.tree.leaves(newest.params), jax.tree.leaves(earlier.params), strict=True)
    assert any(not np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "main, flags", [(sample.main, ["--prompts=a", "--out={}"]), (export.main, ["--out={}"]), (evaluate.main, [])]
)
@pytest.mark.parametrize("step", ["4", "-1", "0"])
def test_one_that_is_not_there_lists_those_that_are(finished, tmp_path, main, flags, step):
    flags = [flag.format(tmp_path / "out") for flag in flags]
    with pytest.raises(UserError, match=rf"has no checkpoint of update {step}: there are those of 3, 6$"):
        main([f"--run={finished}", f"--step={step}", *flags])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("main, flags", [(sample.main, ["--prompts=a", "--out=x"]), (evaluate.main, [])])
def test_a_model_has_no_checkpoints(main, flags):
    with pytest.raises(UserError, match=r"^--step is of a run's checkpoints: give it with --run"):
        main(["--model=bundled:digits", "--step=3", *flags])
