"""The train command with real images."""

import json

import numpy as np
import pytest
from PIL import Image
from training_runs import metrics_of, student_bits, train_until_interrupted

from sid_jax import encode, train
from sid_jax.digits.prompts import prompts_of
from sid_jax.errors import UserError

GAN = [
    "--config=configs/digits_1step_gan.py",
    "--config.gan.start=0",
    "--config.gan.freeze=0",
    "--config.evaluate.metric=",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve pictures of digits' names, one of them damaged."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), np.uint8)).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(prompts_of(number % 10)[0])
    (folder / "05.png").write_bytes(b"damaged")
    return folder


@pytest.fixture
def arguments(tiny_overrides, photos):
    return [*tiny_overrides, *GAN, f"--config.real.source={photos}"]


def test_a_run_with_real_images(arguments, tmp_path):
    """Its metrics have the terms of the GAN in them, and how many images were damaged."""
    train.main([*arguments, f"--workdir={tmp_path / 'run'}"])
    lines = metrics_of(tmp_path / "run")
    assert [line["step"] for line in lines] == [2, 4, 6]
    for line in lines:
        assert all(np.isfinite(line[name]) for name in ("fake_loss", "generator_loss", "real_logit", "fake_logit"))
        assert line["discriminator_loss"] > 0 and line["adversarial_loss"] > 0 and line["dropped_real"] == 0
    # 48 draws of 12 pictures are four epochs: the damaged one was drawn in each.
    assert sum(line["corrupted_images"] for line in lines) == 4


def test_no_source_is_an_error(tiny_overrides, tmp_path):
    with pytest.raises(UserError, match=r"real\.source is empty"):
        train.main([*tiny_overrides, *GAN, "--config.real.source=", f"--workdir={tmp_path / 'run'}"])


def test_captions_are_not_among_the_prompts_that_are_encoded_once(arguments, tmp_path):
    with pytest.raises(UserError, match=r"text\.precompute is true"):
        train.main([*arguments, "--config.text.precompute=true", f"--workdir={tmp_path / 'run'}"])


@pytest.mark.slow
def test_an_interrupted_run_with_real_images_goes_on_in_every_phase(arguments, tmp_path, monkeypatch):
    """Frozen, without and with the adversarial term, and the interruption between two of them."""
    arguments = [*arguments, "--config.gan.freeze=16", "--config.gan.start=32"]
    train.main([*arguments, f"--workdir={tmp_path / 'straight'}"])

    train_until_interrupted([*arguments, f"--workdir={tmp_path / 'resumed'}"], 4, monkeypatch)
    train.main([*arguments, f"--workdir={tmp_path / 'resumed'}"])
    straight, resumed = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("straight", "resumed"))
    assert straight == resumed
    assert student_bits(tmp_path / "straight") == student_bits(tmp_path / "resumed")
    lines = metrics_of(tmp_path / "straight")
    assert [line["generator_loss"] != 0 for line in lines] == [False, True, True]
    assert [line["adversarial_loss"] != 0 for line in lines] == [False, False, True]


@pytest.mark.slow
def test_a_cache_of_latents_gives_the_same_losses(arguments, photos, tmp_path, capsys):
    """Up to the cache's float16. A cache of another autoencoder is refused."""
    encode.main([*arguments, f"--out={tmp_path / 'cache'}", "--batch=5"])
    assert "wrote 11 latents" in capsys.readouterr().out
    (tmp_path / "good").mkdir()
    for file in photos.iterdir():  # the cache has no place for the damaged one: the same pairs without it
        if file.stem != "05":
            (tmp_path / "good" / file.name).write_bytes(file.read_bytes())
    for source, run in ((tmp_path / "good", "images"), (tmp_path / "cache", "latents")):
        train.main([*arguments, f"--config.real.source={source}", f"--workdir={tmp_path / run}"])
    for one, other in zip(metrics_of(tmp_path / "images"), metrics_of(tmp_path / "latents"), strict=True):
        assert one == pytest.approx(other, rel=2e-2)
    about = json.loads((tmp_path / "cache/cache.json").read_text())
    (tmp_path / "cache/cache.json").write_text(json.dumps(about | {"autoencoder": "other"}))
    with pytest.raises(UserError, match="those of another autoencoder"):
        train.main([*arguments, f"--config.real.source={tmp_path / 'cache'}", f"--workdir={tmp_path / 'other'}"])
