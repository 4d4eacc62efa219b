"""The pretrain command makes a teacher that our commands and stock PyTorch open."""

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline
from pipelines import load_pipeline

from sid_jax import pretrain
from sid_jax.digits.metric import DigitsMetric


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrain")
    rng = np.random.default_rng(0)
    np.savez(folder / "d.npz", images=rng.integers(0, 256, (100, 28, 28), np.uint8), labels=np.arange(100) % 10)
    pretrain.main([
        "--config=configs/digits_teacher.py",
        f"--out={folder / 'out'}",
        f"--config.data={folder / 'd.npz'}",
        "--config.autoencoder.channels=(4, 4, 8)",
        "--config.diffusion.channels=(8,)",
        "--config.diffusion.text_width=16",
        "--config.diffusion.text_layers=1",
        *(f"--config.{part}.steps=2" for part in ("classifier", "autoencoder", "diffusion")),
        *(f"--config.{part}.batch=4" for part in ("classifier", "autoencoder", "diffusion")),
        "--config.evaluate.samples=100",
        "--config.evaluate.steps=2",
        "--config.evaluate.guidance=(1.0, 2.0)",
    ])  # fmt: skip
    return folder / "out"


def test_writes_the_teacher_the_metric_and_the_prompts(made):
    assert sorted(path.name for path in made.iterdir()) == ["digits", "digits_metric", "digits_prompts.txt"]
    assert len((made / "digits_prompts.txt").read_text().splitlines()) == 100
    DigitsMetric.load(made / "digits_metric")


def test_latents_have_unit_variance(made):
    assert load_pipeline(made / "digits", parts=()).vae.config.scaling_factor != 1.0


def test_stock_pytorch_opens_it(made):
    pipe = StableDiffusionPipeline.from_pretrained(made / "digits")
    pipe.set_progress_bar_config(disable=True)
    images = pipe("a handwritten seven", num_inference_steps=2, height=32, width=32, output_type="np").images
    assert images.shape == (1, 32, 32, 3) and np.isfinite(images).all()


def test_the_card_has_a_row_for_each_guidance_scale(made):
    card = (made / "digits/README.md").read_text()
    assert "| 1 |" in card and "| 2 |" in card
