"""Images of tensorflow_datasets, by random access to ArrayRecord files; TensorFlow is not needed."""

from collections.abc import Callable, Iterator
from typing import Any

from sid_jax.data.images import Corrupted
from sid_jax.data.labels import NO_LABEL
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
      label: the feature with the class; empty: the only feature that is one, and if there is none, images without
        labels; None: captions, and no labels.

    Attributes:
      classes: how many the feature has; 0 without labels; None with captions.

    Raises:
      UserError: tensorflow_datasets is not installed, or there is no such dataset, split or feature.
    """

    encoded = None

    def __init__(self, name: str, split: str, data_dir: str, image: str, caption: str, label: str | None) -> None:
        self._source = open_tfds(name, split, data_dir, image)
        info = self._source.dataset_info
        features = info.features
        self._image = image
        self.classes: int | None
        self._read: Callable[[Any, list[str]], tuple[Any, ...]]
        if label is None:
            found = caption or _only("Text", "real.caption", "the caption", name, features)
            self.classes, self._read, key = None, _captions, "real.caption"
        else:
            found = label or _only("ClassLabel", "real.label", "the class", name, features, optional=True)
            self.classes, self._read, key = 0, _label, "real.label"
        self._path = found.split("/")
        if found and self._path[0] not in features:
            raise UserError(f"real.source tfds:{name} has no {found!r}: {key} is one of {', '.join(features)}")
        if found and label is not None:
            if "/" in found or not _is_a("ClassLabel", features[found]):
                raise UserError(f"real.source tfds:{name}: {found!r} is no class: set real.label to one that is")
            self.classes = features[found].num_classes or 0
        self.name = f"tfds:{info.full_name} {split} {image} {found}"

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Pair:
        example = self._source[index]
        return Pair(example[self._image], self._read(example, self._path))


def _captions(example: Any, path: list[str]) -> tuple[str, ...]:
    captions = tuple(_texts(example, path))
    if not captions:
        raise Corrupted("it has no caption")
    return captions


def _label(example: Any, path: list[str]) -> tuple[int]:
    if path == [""]:
        return (NO_LABEL,)
    label = int(example[path[0]])
    if label < 0:  # as in splits for tests
        raise Corrupted("it has no label")
    return (label,)


def open_tfds(name: str, split: str, data_dir: str, image: str) -> Any:
    """The examples of a dataset by index, whose images are encoded files. Arguments and errors as of `TfdsPairs`."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"real.source tfds:{name}: pip install tensorflow-datasets==4.9.10 importlib_resources ({error})"
        ) from error
    try:
        # The image stays encoded, so that its size can be checked before it is decoded.
        source = tfds.data_source(
            name, split=split, data_dir=data_dir or None, decoders={image: tfds.decode.SkipDecoding()}
        )
    except Exception as error:  # anything: downloads, builders' own code, missing TensorFlow, wrong names
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"real.source tfds:{name}, split {split}: {type(error).__name__}: {reason}") from error
    features = source.dataset_info.features
    if image not in features or not _is_a("Image", features[image]):
        raise UserError(f"real.source tfds:{name} has no image {image!r}: real.image is one of {', '.join(features)}")
    return source


def _is_a(kind: str, feature: Any) -> bool:
    """Whether a feature is of a class of `tfds.features`."""
    import tensorflow_datasets as tfds

    return isinstance(feature, getattr(tfds.features, kind))


def _only(kind: str, key: str, what: str, name: str, features: Any, *, optional: bool = False) -> str:
    """The only feature of a kind; empty where there is none and none is needed."""
    found = [feature for feature, value in features.items() if _is_a(kind, value)]
    if optional and not found:
        return ""
    if len(found) != 1:
        raise UserError(f"real.source tfds:{name}: set {key} to the feature with {what}, one of {', '.join(features)}")
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
