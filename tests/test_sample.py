"""Pictures by the command: each seed its own, none lost or mixed with others, none that is no picture."""

import io
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import toy_family
from PIL import Image

from sid_jax import sample
from sid_jax.errors import UserError
from sid_jax.experiment.images import ImageProgram
from sid_jax.experiment.student import open_model
from sid_jax.runtime.storage.arrays import Rows
from sid_jax.sid import key_of, seed_words


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
    seeds = (5, 2**31 + 5, 2**32 + 5, 2**64 - 1)
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


@pytest.fixture
def toys(monkeypatch, tmp_path):
    """Samples of a teacher of 8 px with three classes, or with none, in a file or a folder by their name."""
    toy_family.register(monkeypatch)

    def run(name, *flags, classes=3):
        if not (tmp_path / f"toy{classes}").exists():
            toy_family.write_teacher(tmp_path / f"toy{classes}", classes)
        out = tmp_path / name
        kind = "--npz" if name.endswith(".npz") else "--out"
        sample.main([f"--model={tmp_path / f'toy{classes}'}", "--steps=1", f"{kind}={out}", *flags])
        return dict(np.load(out)) if name.endswith(".npz") else pictures(out)

    return run


def pixels(made):
    return np.stack([np.asarray(Image.open(io.BytesIO(made[name]))) for name in sorted(made) if name != "grid.png"])


def test_one_file_for_other_evaluators_has_the_classes_in_turn(toys, tmp_path):
    made = toys("a.npz", "--classes=0-2", "--n=2")
    assert list(made) == ["arr_0", "arr_1"] and made["arr_1"].tolist() == [0, 1, 2, 0, 1, 2]
    assert made["arr_0"].dtype == np.uint8
    np.testing.assert_array_equal(made["arr_0"], pixels(toys("a", "--classes=0,1,2,0,1,2")))
    toys("b.npz", "--n=2")  # all classes
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with pytest.raises(UserError, match=r"--npz .*a\.npz is there already: name another file"):
        toys("a.npz")


def test_a_grid_has_a_row_for_each_class(toys, tmp_path):
    toys("a", "--classes=0-2", "--n=2")
    assert Image.open(tmp_path / "a/grid.png").size == (2 * 76 + 4, 3 * 76 + 4)


def test_a_teacher_without_labels_is_asked_for_a_number(toys, tmp_path):
    assert len(toys("a", "--n=4", classes=0)) == 5
    assert Image.open(tmp_path / "a/grid.png").size == (2 * 76 + 4, 2 * 76 + 4)
    assert list(toys("a.npz", "--n=2", classes=0)) == ["arr_0"]
    with pytest.raises(UserError, match="the teacher has no labels"):
        toys("b", "--classes=0", classes=0)


def test_noise_of_a_file_in_the_place_of_the_seeds(toys, tmp_path):
    """With what the seed draws the pictures are the seed's, by channels as PyTorch has them too."""
    made = toys("a.npz", "--n=2")["arr_0"]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key_of(seed_words(0)), np.arange(6))
    draw = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 0), (8, 8, 3), np.float32))
    z = np.asarray(draw(keys))
    np.save(tmp_path / "z.npy", z)
    np.save(tmp_path / "torch.npy", np.ascontiguousarray(z.transpose(0, 3, 1, 2)))
    np.save(tmp_path / "other.npy", z[::-1].astype(np.float64))
    for name in ("z", "torch"):
        found = toys(f"{name}.npz", "--n=2", f"--noise={tmp_path / name}.npy")["arr_0"]
        np.testing.assert_array_equal(found, made)
    assert (toys("c.npz", "--n=2", f"--noise={tmp_path}/other.npy")["arr_0"] != made).any()


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"pictures begin with \(3, 8, 8, 3\), or \(3, 3, 8, 8\)"),
        (np.zeros((3, 3, 8, 9), np.float32), "has the shape"),
        (np.zeros((3, 8, 8, 3), np.uint8), "holds uint8"),
        (np.asfortranarray(np.zeros((3, 8, 8, 3), np.float32)), "stored by columns"),
        (np.full((3, 8, 8, 3), np.nan), "row 0 has numbers that are not finite"),
        (np.full((3, 8, 8, 3), 1e300), "row 0 has numbers that are not finite"),
        (np.array([{}]), "is no array that np.save has written"),
        (None, "No such file"),
    ],
)
def test_noise_that_is_none(tmp_path, array, problem):
    if array is not None:
        np.save(tmp_path / "z.npy", array)
    with pytest.raises(UserError, match=problem) as caught:
        sample.first_noise(Rows(str(tmp_path / "z.npy"), "--noise"), 3, (8, 8, 3))(0, 3)
    assert str(caught.value).startswith("--noise") and "\n" not in str(caught.value)


def test_a_file_that_could_not_be_completed_is_not_there(tmp_path):
    def batches():
        yield np.zeros((2, 8, 8, 3), np.uint8), np.ones(2, bool)
        yield np.zeros((2, 8, 8, 3), np.uint8), np.array([True, False])

    with pytest.raises(UserError, match="picture 3, of 7, is not finite and was not written"):
        sample.save_npz(batches(), [4, 5, 6, 7], tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_of_prompts_needs_one(tiny, tmp_path):
    with pytest.raises(UserError, match="the teacher takes prompts: name one"):
        sample.main([f"--model={tiny / 'teacher'}", f"--out={tmp_path / 'a'}"])
