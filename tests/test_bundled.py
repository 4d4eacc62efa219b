"""What comes with the package."""

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline
from pipelines import load_teacher

from sid_jax import assets, sample
from sid_jax.data.prompts import read_prompt_file
from sid_jax.digits import prompts as digits
from sid_jax.digits.metric import DigitsMetric
from sid_jax.errors import UserError
from sid_jax.experiment.images import ImageProgram


def folder(name):
    return assets._FOLDER / name


def test_the_teacher_is_at_most_8_mb_and_has_no_pickle():
    files = [path for path in folder("digits").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", ".txt"}


def test_the_teacher_draws_what_it_is_asked_for():
    teacher = load_teacher(assets.resolve("bundled:digits"))
    metric = DigitsMetric.load(folder("digits_metric"))
    prompts = digits.all_prompts()
    found = metric(ImageProgram(teacher, teacher.sampler(10, 2.0), 32)(teacher.denoiser.params, prompts, 0), prompts)
    assert found["prompt_accuracy"] >= 0.95


def test_stock_pytorch_opens_the_teacher():
    pipe = StableDiffusionPipeline.from_pretrained(folder("digits"))
    pipe.set_progress_bar_config(disable=True)
    prompts = [digits.prompts_of(digit)[0] for digit in range(10)]
    images = pipe(prompts, num_inference_steps=10, guidance_scale=2.0, height=32, width=32, output_type="np").images
    metric = DigitsMetric.load(folder("digits_metric"))
    _, predicted = metric.features_and_digits(np.round(images * 255).astype(np.uint8))
    assert np.mean(predicted == np.arange(10)) >= 0.8


def test_the_prompts_are_those_of_the_digits():
    assert read_prompt_file(assets.resolve("bundled:digits_prompts.txt")) == digits.all_prompts()


def test_a_teacher_can_be_sampled(tmp_path):
    sample.main([
        "--model=bundled:digits", "--prompts=the digit 3", "--n=2", "--steps=2", "--guidance=1.5", f"--out={tmp_path}",
    ])  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000.png", "0001.png", "grid.png"]


@pytest.mark.parametrize("name", ["bundled:cats", "bundled:../config.py", "bundled:/etc/passwd"])
def test_nothing_else_is_bundled(name):
    with pytest.raises(UserError, match="does not come with the package"):
        assets.resolve(name)
