"""MNIST as text-image pairs."""

import numpy as np
import pytest

from sid_jax.digits import prompts as digits
from sid_jax.errors import UserError


@pytest.mark.parametrize("digit", range(10))
def test_every_wording_names_its_digit(digit):
    assert {digits.digit_of(prompt) for prompt in digits.prompts_of(digit)} == {digit}


@pytest.mark.parametrize("prompt", ["", "a cat", "three or four", "17", "seventeen", "someone"])
def test_a_prompt_that_names_no_digit_or_several(prompt):
    assert digits.digit_of(prompt) is None


def test_prompts_differ():
    assert len(set(digits.all_prompts())) == len(digits.all_prompts()) == 100


def test_reads_an_npz_file(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    np.savez(tmp_path / "d.npz", images=images, labels=np.arange(5, dtype=np.uint8))
    pictures, labels = digits.load_mnist(str(tmp_path / "d.npz"))
    assert pictures.shape == (5, 32, 32, 3) and pictures.dtype == np.uint8 and labels.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(pictures[:, 2:30, 2:30, 1], images)
    assert pictures[:, :2].max() == 0


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": np.zeros((5, 28, 28), np.uint8)},
        {"images": np.zeros((5, 28, 28)), "labels": np.zeros(5)},
        {"images": np.zeros((5, 28, 28), np.uint8), "labels": np.zeros(4)},
        {"images": np.array([{}], object), "labels": np.zeros(1)},
    ],
    ids=["no labels", "floats", "another count", "pickled"],
)
def test_another_npz_file_is_an_error(tmp_path, arrays):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(UserError, match=r"d.npz: needs"):
        digits.load_mnist(str(tmp_path / "d.npz"))
