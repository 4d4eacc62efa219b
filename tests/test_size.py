"""Sizes of images that are not square: what a setting says, and what the rooms make of it."""

import json
from pathlib import Path

import pytest

import sid_jax.config
from sid_jax import assets
from sid_jax.config import check_settings
from sid_jax.errors import UserError
from sid_jax.families.open import open_source, open_teacher
from sid_jax.runtime.cli import config_file
from sid_jax.runtime.run.resume import training_differences
from sid_jax.size import Size, parse, size_of
from sid_jax.teachers.space import PixelSpace


def overridden(text, family="stable_diffusion"):
    config = sid_jax.config.default(family)
    config_file.override(config, sid_jax.config.default(family), "resolution", text)
    return config


@pytest.mark.parametrize(
    ("text", "resolution", "shown"),
    [("512", 512, "512"), ("512x768", (512, 768), "512x768"), ("64x64", 64, "64"), (" 8x16 ", (8, 16), "8x16")],
)
def test_the_height_comes_first(text, resolution, shown):
    assert parse(text) == resolution
    height, width = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    assert size_of(resolution) == Size(height, width) and size_of(list(size_of(resolution))) == (height, width)
    assert str(size_of(resolution)) == shown and size_of(resolution).plain == resolution


@pytest.mark.parametrize("text", ["", "x", "512x", "x512", "1x2x3", "-512", "512.5", "512,768", "true", "5_12"])
def test_what_is_no_size_is_a_line(text):
    with pytest.raises(UserError, match=f"^config key resolution takes an int or HEIGHTxWIDTH, not {text!r}$"):
        overridden(text)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (0, "0: use an int in [1, 8192] for each side"),
        ((512, 8193), "512x8193: use an int in [1, 8192] for each side"),
        ((512,), "(512,): use one number of pixels for squares, or (height, width)"),
        ((512, 768.0), "(512, 768.0): use one number"),
        ((True, 512), "(True, 512): use one number"),
    ],
)
def test_sizes_of_a_config_are_checked(value, says):
    config = sid_jax.config.default()
    config.resolution = value
    with pytest.raises(UserError) as error:
        check_settings(config)
    assert str(error.value).startswith(f"config key resolution is {says}")


@pytest.mark.parametrize("value", ["512", 512.0])
def test_other_types_are_refused_where_they_are_set(value):
    with pytest.raises(TypeError):
        sid_jax.config.default().resolution = value


@pytest.mark.parametrize("text", ["32", "32x48"])
def test_a_saved_config_is_the_same_training(text):
    config = overridden(text)
    check_settings(config)
    saved = config_file.to_json(config)
    again = config_file.from_json(saved, sid_jax.config.schema_of)
    assert again.resolution == config.resolution == parse(text)
    assert not training_differences(json.loads(saved), again.to_dict())
    assert set(training_differences(json.loads(saved), overridden("48x32").to_dict())) == {"resolution"}


def test_a_config_file_says_height_and_width(tmp_path):
    file = tmp_path / "wide.py"
    file.write_text(
        "import sid_jax.config\n\n\ndef get_config():\n    c = sid_jax.config.default()\n"
        "    c.resolution = (32, 48)\n    return c\n"
    )
    assert config_file.load(str(file), sid_jax.config.schema_of).resolution == (32, 48)
    overrides = [("resolution", "64")]
    assert config_file.load(str(Path(file)), sid_jax.config.schema_of, overrides).resolution == 64


def test_latents_have_the_proportions_of_the_images():
    space = open_teacher(open_source(f"{assets.PREFIX}digits")).space
    assert space.shape((32, 48)) == (4, 6, 6) and space.shape(32) == space.shape((32, 32)) == (4, 4, 6)
    with pytest.raises(UserError, match=r"^resolution 32x44 does not suit the teacher: use multiples of 8$"):
        space.shape((32, 44))
    with pytest.raises(UserError, match=r"^resolution 32x8208: use an int in \[1, 8192\] for each side$"):
        space.shape((32, 8208))


def test_teachers_in_pixels_stay_square():
    assert PixelSpace(32).shape(32) == PixelSpace(32).shape((32, 32)) == (32, 32, 3)
    with pytest.raises(
        UserError, match=r"^resolution 32x48 does not suit the teacher: it makes square images of 32 px$"
    ):
        PixelSpace(32).shape(overridden("32x48", "edm").resolution)
