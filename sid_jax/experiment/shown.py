"""What a run shows of its student: for which prompts or classes, as grids with captions."""

from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from sid_jax import assets
from sid_jax.data.labels import NO_LABEL
from sid_jax.errors import UserError, errors_in
from sid_jax.experiment.images import ImageProgram
from sid_jax.runtime.run.pictures import image_grid
from sid_jax.teachers.conditions import Asked, Conditions


def shown_of(config: ConfigDict, conditions: Conditions, asked: Asked) -> list[Any]:
    """What the images of a grid are of, one of it for each: of `sample_prompts`, or where there are none, of `asked`.

    Raises:
      UserError: `sample_prompts` can't be read, or has more than a grid has images.
    """
    count, named = config.sample_images, config.sample_prompts
    if named:
        with errors_in("config key sample_prompts"):
            asked = conditions.asked(assets.resolve(named))
        if len(asked) > count:
            raise UserError(
                f"config key sample_images is {count}, and sample_prompts has {len(asked)} {conditions.noun}: a grid "
                f"would leave some out, so set it to {len(asked)} or more"
            )
    return [asked[i] for i in np.linspace(0, len(asked), count, endpoint=False).astype(int)]


def captions_of(asked: Asked) -> list[str] | None:
    """What stands below pictures of prompts or classes; None: nothing, where there is one class without a name."""
    if all(each == NO_LABEL for each in asked):
        return None
    return [each if isinstance(each, str) else f"class {each}" for each in asked]


class Pictures:
    """Sample grids of the student, always of the same prompts or labels, and noise.

    Args:
      program: what makes the images.
      asked: what each image is of.
      seed: of the noise.
    """

    def __init__(self, program: ImageProgram, asked: Asked, seed: int):
        self._program, self._asked, self._seed = program, asked, seed

    def __call__(self, params: Any) -> Image.Image:
        """A picture of the images that the parameters make."""
        return image_grid(self._program(params, self._asked, self._seed), captions=captions_of(self._asked))
