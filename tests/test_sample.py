"""Pictures by the command: each seed its own, none lost or mixed with others, none that is no picture."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from sid_jax import sample
from sid_jax.errors import UserError
from sid_jax.experiment.images import ImageProgram
from sid_jax.experiment.student import open_model


def pictures(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.png"))}


@pytest.fixture
def makes(tiny, tmp_path):
    """Pictures of the tiny teacher, by the command in this process, or in another one with settings of JAX."""

    def run(name, *flags, prompts="a handwritten seven", **environment):
        argv = [f"--model={tiny / 'teacher'}", f"--prompts={prompts}", "--steps=2", f"--out={tmp_path / name}", *flags]
        if environment:
            command = [sys.executable, "-m", "sid_jax.sample", *argv]
            done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        else:
            sample.main(argv)
        return pictures(tmp_path / name)

    return run


def test_every_seed_of_pytorch_has_pictures_of_its_own(makes):
    seeds = (0, 5, 2**31 - 1, 2**31, 2**32, 2**32 + 5, 2**63, 2**64 - 1)
    made = [makes(f"seed-{seed}", f"--seed={seed}")["0000.png"] for seed in seeds]
    assert len(set(made)) == len(seeds)


def test_settings_of_jax_do_not_change_the_pictures_of_a_seed(makes):
    here = makes("here", "--n=2")
    settings = {
        "JAX_THREEFRY_PARTITIONABLE": "0", "JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_ENABLE_X64": "1",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_RANDOM_SEED_OFFSET": "3", "JAX_DEFAULT_DTYPE_BITS": "64",
    }  # fmt: skip
    assert makes("there", "--n=2", **settings) == here


@pytest.mark.parametrize("prompts", ["", "先生"])
def test_prompts_of_any_letters_and_of_none(makes, prompts):
    assert len(makes("any", prompts=prompts)) == 2


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--seed=-1", "--seed is -1"),
        (f"--seed={2**64}", f"--seed is {2**64}: use 0 to {2**64 - 1}"),
        ("--n=1000000000000", "--n is 1000000000000"),
        ("--n=0", "--n is 0"),
        ("--steps=1000000000", "--steps is 1000000000"),
        ("--guidance=nan", "--guidance is nan"),
        ("--guidance=-inf", "--guidance is -inf"),
        ("--prompts=a \udce9 seven", r"the prompt a \udce9 seven is not UTF-8"),
    ],
)
def test_flags_that_make_no_pictures(makes, flag, says):
    with pytest.raises(UserError) as caught:
        makes("none", flag)
    assert says in str(caught.value)


def test_old_pictures_are_not_mixed_with_new_ones(makes, tmp_path):
    old = makes("same", "--n=3")
    with pytest.raises(UserError, match=r"same has pictures in it, such as 0000.png: name another folder"):
        makes("same")
    assert pictures(tmp_path / "same") == old
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("of mine")
    assert len(makes("notes")) == 2


def test_out_is_no_folder(makes, tmp_path):
    (tmp_path / "file").write_text("of mine")
    with pytest.raises(UserError, match="file can't be used as a folder"):
        makes("file")
    assert (tmp_path / "file").read_text() == "of mine"


def test_a_picture_that_is_not_finite_is_named_and_not_written(makes, tmp_path):
    with pytest.raises(UserError, match=r"picture 0000\.png, of 'a handwritten seven', is not finite"):
        makes("huge", "--guidance=1e38")
    assert pictures(tmp_path / "huge") == {}


def test_pictures_are_written_as_they_are_made_and_a_grid_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "GRID_PIXELS", 7 * 72**2)
    written = []

    def batches():
        for start in range(0, 12, 4):
            written.append(len(pictures(tmp_path)))
            yield np.full((4, 8, 8, 3), start, np.uint8), np.ones(4, bool)

    sample.save(batches(), ["a"] * 12, 3, tmp_path)
    assert written == [0, 4, 8]
    assert len(pictures(tmp_path)) == 13
    width, height = Image.open(tmp_path / "grid.png").size
    assert (width, height) == (3 * 76 + 4, 2 * 76 + 4)  # two whole rows of three


def test_grids_of_a_run_are_black_where_pictures_are_not_finite(tiny, caplog):
    teacher = open_model(str(tiny / "teacher")).teacher
    flags = (teacher, teacher.sampler(1, 1.0), 32)
    given = (jax.tree.map(lambda p: p * np.nan, teacher.denoiser.params), ["a handwritten seven"], 0)
    assert not ImageProgram(*flags, strict=False)(*given).any()
    assert "1 of 1 pictures are not finite, first that of 'a handwritten seven'; in their place" in caplog.text
    with pytest.raises(UserError, match="1 of 1 pictures are not finite"):
        ImageProgram(*flags)(*given)
