"""Where checkpoints are: below folders of any name, of a trial before the run, and in folders that are removed."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from sid_jax.errors import UserError
from sid_jax.runtime.run import manifest
from sid_jax.runtime.run.checkpoints import Checkpoints, abstract
from sid_jax.runtime.run.trial import try_checkpoints

STATE = {"w": jnp.arange(12.0).reshape(3, 4), "step": jnp.int32(1)}


# Names that etils takes for patterns, and some that a shell or a URL would take for something else.
ODD_NAMES = (
    "run[1]",
    "run[",
    "star*",
    "**",
    "what?",
    "[!a]",
    "100%",
    "a#b",
    "a|b",
    "x.orbax-checkpoint-tmp",
    "new\nline",
    "\u732b",
)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_below_a_folder_of_any_name(tmp_path, name):
    (tmp_path / name).mkdir()
    try_checkpoints(tmp_path / name)
    assert list((tmp_path / name).iterdir()) == []
    with Checkpoints(tmp_path / name) as checkpoints:
        checkpoints.save(1, STATE, {}, {})
    with Checkpoints(tmp_path / name, read_only=True) as checkpoints:
        assert np.array_equal(checkpoints.restore(abstract(STATE)).state["w"], STATE["w"])


def test_another_run_below_a_folder_that_matches_is_left_out(tmp_path):
    for name, step in (("run2", 7), ("run*", 5)):
        with Checkpoints(tmp_path / name) as checkpoints:
            checkpoints.save(3, STATE | {"step": jnp.int32(step)}, {}, {})
    with Checkpoints(tmp_path / "run*", read_only=True) as checkpoints:
        assert checkpoints.restore(abstract(STATE)).state["step"] == 5


@pytest.mark.parametrize(
    "name, reason",
    [("back\\slash", "a backslash in its path"), ("a.__lock", "ends with .__lock"), ("\udcff", "that are not UTF-8")],
)
def test_a_name_that_cannot_be_written_to_is_refused_and_nothing_is_made(tmp_path, name, reason):
    with pytest.raises(UserError, match=reason) as caught:
        Checkpoints(tmp_path / name / "checkpoints")
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_a_trial_that_fails_says_why_before_the_run(tmp_path, monkeypatch):
    def fail(self, directory):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest.ManifestHandler, "finalize", fail)
    with pytest.raises(UserError, match=r"^checkpoints can't be written to .*: No space left on device$"):
        try_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("again", [False, True])
def test_a_folder_that_is_removed_ends_the_run(tmp_path, again):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, STATE, {}, {})
    checkpoints.wait()
    shutil.move(tmp_path / "checkpoints", tmp_path / "elsewhere")
    if again:
        (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"checkpoints was removed or moved while the run went on"):
        checkpoints.save(2, STATE, {}, {})
    with pytest.raises(UserError, match=r"was removed or moved"):
        checkpoints.wait()
    checkpoints.close()
    assert (tmp_path / "checkpoints").exists() == again


def test_a_folder_that_is_removed_while_it_is_written_to_ends_the_run(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, STATE, {}, {})
    checkpoints.wait()

    def remove(self, directory):
        shutil.rmtree(tmp_path / "checkpoints")

    monkeypatch.setattr(manifest.ManifestHandler, "finalize", remove)
    checkpoints.save(2, STATE, {}, {})
    with pytest.raises(UserError, match=r"was removed or moved"):
        checkpoints.wait()
    checkpoints.close()
    assert not (tmp_path / "checkpoints").exists()
