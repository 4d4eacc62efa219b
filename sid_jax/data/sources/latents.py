"""A cache of latents: pairs whose images were encoded once, so that training needs no autoencoder.

It is a folder with `latents.npy` (`[N, h, w, C]`, float16), `captions.jsonl` (for each latent a line with its
conditions) and `cache.json`, which says what the latents are and is written last.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sid_jax.data.images import Corrupted
from sid_jax.data.pairs import Encoded, Pair
from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import write_whole

_ABOUT, _LATENTS, _CAPTIONS = "cache.json", "latents.npy", "captions.jsonl"


def is_cache(path: str) -> bool:
    """Whether the path is the folder of a cache that was completed."""
    return (Path(path) / _ABOUT).is_file()


class LatentCache:
    """Pairs of latents and conditions.

    Args:
      path: a folder on a disk.

    Attributes:
      encoded: what `write_cache` was told of the latents.

    Raises:
      UserError: a file is missing or damaged.
    """

    def __init__(self, path: str) -> None:
        folder = Path(path)
        try:
            about = json.loads((folder / _ABOUT).read_text())
            space, resolution = str(about["autoencoder"]), int(about["resolution"])
            self._latents = np.load(folder / _LATENTS, mmap_mode="r", allow_pickle=False)
            lines = (folder / _CAPTIONS).read_text().split("\n")[:-1]
            self._conditions = [tuple(json.loads(line)) for line in lines]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not a whole cache of latents ({error}): write it anew") from error
        count = len(self._conditions)
        if not count or count != about.get("count") or self._latents.ndim != 4 or len(self._latents) < count:
            raise UserError(f"{path} is not a whole cache of latents: write it anew")
        self.name = f"latents of {about.get('source')}, {count} at {resolution} px, {space}"
        self.encoded = Encoded(self._latents.shape[1:], resolution, space)

    def __len__(self) -> int:
        return len(self._conditions)

    def __getitem__(self, index: int) -> Pair:
        latent = np.asarray(self._latents[index], np.float32)
        if not np.isfinite(latent).all():
            raise Corrupted("the latent is not finite")
        return Pair(latent, self._conditions[index])


def write_cache(
    folder: Path,
    batches: Iterator[tuple[np.ndarray, list[tuple[Any, ...]]]],
    most: int,
    *,
    source: str,
    autoencoder: str,
    resolution: int,
) -> int:
    """Writes a cache.

    Args:
      folder: made if it is not there.
      batches: pairs of latents `[n, h, w, C]` and their conditions, n of them.
      most: the file is made for so many latents; there may be fewer.
      source: the name of the pairs.
      autoencoder: identifies the autoencoder.
      resolution: of the images, in pixels.

    Returns:
      How many latents are in it.

    Raises:
      UserError: the folder can't be written to, or there is no latent.
    """
    count, latents = 0, None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _ABOUT).unlink(missing_ok=True)
        with open(folder / _CAPTIONS, "w", encoding="utf-8") as lines:
            for values, conditions in batches:
                if latents is None:
                    shape = (most, *values.shape[1:])
                    latents = np.lib.format.open_memmap(folder / _LATENTS, "w+", np.float16, shape)
                latents[count : count + len(values)] = values
                lines.writelines(json.dumps(each) + "\n" for each in conditions)
                count += len(values)
        if latents is None:
            raise UserError(f"{source}: no image can be used")
        latents.flush()
        about = {"source": source, "autoencoder": autoencoder, "resolution": resolution, "count": count}
        write_whole(folder / _ABOUT, json.dumps(about, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{folder} can't be written to: {error.strerror or error}") from error
    return count
