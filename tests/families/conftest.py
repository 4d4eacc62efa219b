import shutil
from pathlib import Path

import pytest


@pytest.fixture
def sd(pipelines, tmp_path) -> Path:
    """A Stable Diffusion folder of its own for each test."""
    return Path(shutil.copytree(pipelines["sd"], tmp_path / "sd"))


@pytest.fixture
def sdxl(pipelines, tmp_path) -> Path:
    """A Stable Diffusion XL folder of its own for each test."""
    return Path(shutil.copytree(pipelines["sdxl"], tmp_path / "sdxl"))
