"""Image-text pairs of tensorflow_datasets, by random access to ArrayRecord files; TensorFlow is not needed."""

from collections.abc import Iterator
from typing import Any

from sid_jax.data.images import Corrupted
from sid_jax.data.pairs import Pair
from sid_jax.errors import UserError


class TfdsPairs:
    """Pairs of a dataset that has been prepared, or can be, in the ArrayRecord format.

    Args:
      name: such as "coco_captions" or "coco_captions/2017:1.1.0".
      split: such as "train" or "train[:10%]".
      data_dir: where the data is; empty: the library's default.
      image: the feature with the image.
      caption: the feature with the caption, or with several; "captions/text" names a part of a feature. Empty: the
        only feature that is text.

    Raises:
      UserError: tensorflow_datasets is not installed, or there is no such dataset, split or feature.
    """

    encoded = None

    def __init__(self, name: str, split: str, data_dir: str, image: str, caption: str) -> None:
        try:
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise UserError(
                f"real.source tfds:{name}: pip install tensorflow-datasets==4.9.10 importlib_resources ({error})"
            ) from error
        try:
            # The image stays encoded, so that its size can be checked before it is decoded.
            self._source = tfds.data_source(
                name, split=split, data_dir=data_dir or None, decoders={image: tfds.decode.SkipDecoding()}
            )
        except Exception as error:  # anything: downloads, builders' own code, missing TensorFlow, wrong names
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"real.source tfds:{name}, split {split}: {type(error).__name__}: {reason}") from error
        info = self._source.dataset_info
        features = info.features
        if image not in features or not isinstance(features[image], tfds.features.Image):
            raise UserError(
                f"real.source tfds:{name} has no image {image!r}: real.image is one of {', '.join(features)}"
            )
        self._image = image
        self._caption = (caption or _only_text(tfds, name, features)).split("/")
        if self._caption[0] not in features:
            raise UserError(f"real.source tfds:{name} has no {caption!r}: real.caption is one of {', '.join(features)}")
        self.name = f"tfds:{info.full_name} {split} {image} {'/'.join(self._caption)}"

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Pair:
        example = self._source[index]
        captions = tuple(_texts(example, self._caption))
        if not captions:
            raise Corrupted("it has no caption")
        return Pair(example[self._image], captions)


def _only_text(tfds: Any, name: str, features: Any) -> str:
    found = [key for key, feature in features.items() if isinstance(feature, tfds.features.Text)]
    if len(found) != 1:
        raise UserError(
            f"real.source tfds:{name}: set real.caption to the feature with the caption, one of {', '.join(features)}"
        )
    return found[0]


def _texts(value: Any, path: list[str]) -> Iterator[str]:
    """The strings at a path of nested features. Where a sequence is on the path, or at its end, they are several."""
    if isinstance(value, dict):
        if path and path[0] in value:
            yield from _texts(value[path[0]], path[1:])
    elif isinstance(value, bytes):
        try:
            yield value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Corrupted(f"its caption is not UTF-8: {error}") from error
    elif isinstance(value, str):
        yield value
    else:
        for element in value:
            yield from _texts(element, path)
