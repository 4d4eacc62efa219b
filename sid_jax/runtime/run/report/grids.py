"""The sample grids of a run as small pictures, however long it is, in a bounded number of bytes."""

import base64
import io
from collections.abc import Collection

from PIL import Image

from sid_jax.runtime.run.captions import kept

MOST_GRIDS = 24
_SIDES = (1024, 768, 512, 384)  # pixels, of the longer side
_MOST_BYTES = 180_000  # of a grid


class Grids:
    """Grids by update, reduced and compressed; of too many some stay, about equally far from each other."""

    def __init__(self) -> None:
        self._encoded: dict[int, str] = {}
        self._captions: dict[int, tuple[str, ...]] = {}

    def add(self, step: int, image: Image.Image) -> None:
        """Adds the grid of an update."""
        self._encoded[step], self._captions[step] = embedded(image), kept(image)
        steps = spread(self._encoded, MOST_GRIDS)
        self._encoded = {step: self._encoded[step] for step in steps}

    def items(self) -> list[tuple[int, str]]:
        """Update and address of each grid, in order."""
        return list(self._encoded.items())

    def captions(self) -> tuple[list[tuple[str, ...]], list[int]]:
        """The texts of the grids, each list of them once; and which of those each grid has."""
        of_each = [self._captions[step] for step in self._encoded]
        different = list(dict.fromkeys(of_each))
        return different, [different.index(each) for each in of_each]


def spread(steps: Collection[int], most: int) -> list[int]:
    """At most so many of the steps, in order: the first, the last, and of the others those that are far apart."""
    kept = sorted(steps)
    while len(kept) > most:
        crowded = min(range(1, len(kept) - 1), key=lambda i: kept[i + 1] - kept[i - 1])
        del kept[crowded]
    return kept


def embedded(image: Image.Image, larger: int = 1) -> str:
    """A picture as an address that has it in itself, of at most some `larger` times 250 kB.

    Where it would be more, the picture is reduced further; the smallest size is taken whatever it has.
    """
    for side in _SIDES:
        reduced, data = image.convert("RGB"), io.BytesIO()
        reduced.thumbnail((side * larger, side * larger), Image.Resampling.LANCZOS)
        reduced.save(data, "WEBP", quality=80)
        if len(data.getvalue()) <= _MOST_BYTES * larger:
            break
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
