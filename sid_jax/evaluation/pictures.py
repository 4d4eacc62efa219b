"""Pictures from files for a measurement, decoded as the tools of the field decode them."""

import numpy as np

from sid_jax.data.images import Corrupted, read_rgb
from sid_jax.data.sources.pictures import Pictures
from sid_jax.errors import UserError
from sid_jax.runtime.storage.small_files import shown

MOST_PIXELS = 2**27  # of a picture; what is decoded of it takes 400 MB


def read_picture(pictures: Pictures, index: int) -> np.ndarray:
    """A picture as `Image.open(file).convert("RGB")` has it, as pytorch-fid and clean-fid read: uint8 `[H, W, 3]`.

    It is not turned as its EXIF data say, and nothing is cut off.

    Raises:
      UserError: it can't be used. A measurement without some of its pictures would be another one.
    """
    try:
        return np.asarray(read_rgb(pictures.read(index), MOST_PIXELS, upright=False))
    except Corrupted as error:
        raise UserError(f"{shown(pictures.names[index])} can't be used: {error}") from error
