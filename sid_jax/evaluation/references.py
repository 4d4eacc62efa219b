"""Files of what real images look like to a network: those that other projects publish, and ours."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from sid_jax.errors import UserError
from sid_jax.evaluation.npz_members import NpzMembers
from sid_jax.evaluation.protocols import Measure, Protocol
from sid_jax.formats.opcodes import Allowed, Unexpected, interpret, shown
from sid_jax.formats.pickled_arrays import NumberType, PickledArray, array_rules, fill, set_order
from sid_jax.formats.torch_tensors import is_count, refusals
from sid_jax.metrics.frechet import Statistics
from sid_jax.metrics.moments import BlockedMoments
from sid_jax.runtime.storage.arrays import npy_in
from sid_jax.runtime.storage.files import on_disk
from sid_jax.runtime.storage.impostors import FIRST_BYTES, what_it_is
from sid_jax.runtime.storage.json_files import parse_json
from sid_jax.runtime.storage.small_files import reading_regular
from sid_jax.runtime.storage.zips import zip_appearing

MOST_WIDTH = 4096  # numbers of a feature: those of VGG16, the widest in use
_MOST_FEATURES = 2**30  # bytes: 50,000 features of Inception in float32 are 410 MB
_MOST_ABOUT = 2**18  # characters
_MOST_SIDE = 2048  # pixels of an image in a batch
_UNEVEN = 1e-6  # of its largest number: how far a covariance may be from symmetric
_PICTURES = "arr_0"


@dataclass(frozen=True, eq=False)
class Reference:
    """What a file says of real images.

    Attributes:
      statistics: of their features.
      count: how many images they were; None: the file does not say.
      about: how they were made, by name (see `made_with`); empty: the file does not say.
      features: of some of them, for precision and recall, float32 `[K, D]`; None: there are none.
      pictures: images in the file, which `pictures_in` reads: batches of ADM's have 10,000.
      sha256: of the file.
    """

    statistics: Statistics
    count: int | None
    about: dict[str, str]
    features: np.ndarray | None
    pictures: int
    sha256: str


def read_reference(path: os.PathLike | str, name: str = "fid") -> Reference:
    """Reads a file of statistics. Nothing in it is unpickled.

    Args:
      path: an .npz file with `mu` and `sigma` (pytorch-fid, TTUR, EDM, clean-fid, ADM; ours has more), or a .pkl file
        of EDM2.
      name: of the statistics in a file of EDM2: "fid" or "fd_dinov2".

    Raises:
      UserError: there is no such file, it is something else or damaged, or its numbers are no mean and covariance; one
        line with the file and the reason.
    """
    file = on_disk(path, "the reference")
    with reading_regular(file) as opened:
        digest = hashlib.file_digest(cast(Any, opened), "sha256").hexdigest()
        opened.seek(0)
        start = opened.read(FIRST_BYTES)
        if known := what_it_is(start):
            raise UserError(f"{file} is {known}")
        if start.startswith(b"PK"):
            return _from_npz(NpzMembers(opened, str(file)), digest)
        if start.startswith(b"\x80"):
            return _from_pickle(opened, file, name, digest)
    raise UserError(f"{file} is neither an .npz file (mu, sigma) nor a .pkl file of EDM2")


def pictures_in(path: os.PathLike | str, batch: int) -> Iterator[np.ndarray]:
    """The images of a file, such as a batch of ADM's, uint8 `[batch, H, W, 3]`; the last of them may be fewer.

    Raises:
      UserError: there are none, or the file is damaged.
    """
    file = on_disk(path, "the reference")
    with reading_regular(file) as opened:
        members = NpzMembers(opened, str(file))
        yield from members.rows(_PICTURES, _check_pictures(members), batch)


def write_reference(
    path: os.PathLike | str, moments: BlockedMoments, about: Mapping[str, str], features: np.ndarray | None = None
) -> None:
    """Writes statistics, whole or not at all, in a form that pytorch-fid, EDM and clean-fid read too.

    Equal statistics give equal bytes.

    Args:
      path: of an .npz file on a disk.
      moments: of all the images.
      about: how they were made; see `Reference`.
      features: of some of them, `[K, D]`; they are kept in float16.

    Raises:
      UserError: there is too little room.
    """
    mean, covariance = moments.statistics()
    arrays = {
        "mu": mean,
        "sigma": covariance,
        "num_images": np.array(moments.count, np.int64),
        "about": np.array(json.dumps(dict(about), indent=1, sort_keys=True)),
    }
    if features is not None:
        arrays["features"] = features.astype(np.float16)
    need = sum(array.nbytes + 1000 for array in arrays.values())
    with zip_appearing(on_disk(path, "the reference"), need) as packed:
        for name, array in arrays.items():
            with npy_in(packed, name, array.shape, array.dtype) as stream:
                stream.write(array.tobytes())


def made_with(protocol: Protocol, measure: Measure, network_sha256: str) -> dict[str, str]:
    """How the reference of a metric is made, as `about` in its file says it: one that is made otherwise is another one.

    Args:
      protocol: the metric's.
      measure: the metric, of features of Inception or DINOv2.
      network_sha256: of the network's parameters.
    """
    transform = protocol.transform if measure.transformed else None
    return {
        "network": {"inception": "Inception-2015", "dinov2": "DINOv2"}[measure.network],
        "network_sha256": network_sha256,
        "input": measure.variant,
        "transform": f"centre crop ({transform.offset}), Lanczos to {transform.size} px" if transform else "none",
    }


def check_made(reference: Reference, expected: Mapping[str, str], what: str) -> None:
    """Checks that a reference does not say that it was made otherwise than is expected.

    What a file does not say is not checked.

    Args:
      reference: as it was read.
      expected: what `made_with` has.
      what: begins the message of an error.

    Raises:
      UserError: it was made otherwise.
    """
    for key, value in expected.items():
        said = reference.about.get(key, value)
        if said != value:
            raise UserError(
                f"{what} was made with {key} {shown(said)}, and {shown(value)} is needed: name another file"
            )


def _from_npz(members: NpzMembers, digest: str) -> Reference:
    where = members.where
    absent = [name for name in ("mu", "sigma") if name not in members.names]
    if absent:
        there = ", ".join(members.names[:6]) or "nothing"
        raise UserError(f"{where} has no {' and no '.join(absent)}, but {there}: statistics are needed")
    width = _width(members.header("mu").shape, members.header("sigma").shape, where)
    about, count, features = {}, None, None
    if "about" in members.names:
        about = _about(members.text("about", _MOST_ABOUT), where)
    if "num_images" in members.names:
        count = _count(members.read("num_images", "iu", ()).item(), where)
    if "features" in members.names:
        shape = members.header("features").shape
        if len(shape) != 2 or shape[1] != width or not 4 * shape[0] * width <= _MOST_FEATURES:
            raise UserError(f"{where}: features are {list(shape)}: [K, {width}] is needed, of at most 1 GB in float32")
        features = members.read("features", "f", shape).astype(np.float32)
        if not np.isfinite(features).all():
            raise UserError(f"{where}: features has numbers that are not finite")
    pictures = _check_pictures(members)[0] if _PICTURES in members.names else 0
    mean, covariance = members.read("mu", "f", (width,)), members.read("sigma", "f", (width, width))
    return Reference(_statistics(mean, covariance, where), count, about, features, pictures, digest)


def _check_pictures(members: NpzMembers) -> tuple[int, ...]:
    """The shape of the images in a file, which are of a size that can be."""
    if _PICTURES not in members.names:
        raise UserError(f"{members.where} has no images ({_PICTURES})")
    header = members.header(_PICTURES)
    shape = header.shape
    if header.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or not 0 < max(shape[1:3]) <= _MOST_SIDE:
        raise UserError(
            f"{members.where}: {_PICTURES} is {header.dtype} {list(shape)}: uint8 [N, H, W, 3] is needed, of at most "
            f"{_MOST_SIDE} px"
        )
    return shape


def _from_pickle(opened: BinaryIO, file: Path, name: str, digest: str) -> Reference:
    with refusals(file):
        value, _ = interpret(opened, _STATISTICS)
        if not isinstance(value, dict):
            raise Unexpected(f"it has {shown(value)}; a dict of statistics is needed")
        found = value.get(name)
        arrays = [found.get(key) for key in ("mu", "sigma")] if isinstance(found, dict) else []
        mean, covariance = arrays if arrays and all(isinstance(each, PickledArray) for each in arrays) else (None, None)
        if not isinstance(mean, PickledArray) or not isinstance(covariance, PickledArray):
            there = ", ".join(map(shown, list(value)[:6])) or "nothing"
            raise Unexpected(f"no {name} with the arrays mu and sigma in it, but {there}")
        width = _width(mean.shape, covariance.shape, str(file))
        if covariance.code not in _FLOATS or mean.code not in _FLOATS:
            raise Unexpected(f"mu and sigma of {width} numbers are no floating-point numbers")
        count = _count(value["num_images"], str(file)) if "num_images" in value else None
        read = _statistics(mean.read(opened), covariance.read(opened), str(file))
    return Reference(read, count, {}, None, 0, digest)


def _width(mean: tuple[int, ...], covariance: tuple[int, ...], where: str) -> int:
    width = mean[0] if len(mean) == 1 else 0
    if not 0 < width <= MOST_WIDTH or covariance != (width, width):
        raise UserError(
            f"{where}: mu is {list(mean)} and sigma {list(covariance)}: [D] and [D, D] are needed, D up to {MOST_WIDTH}"
        )
    return width


def _statistics(mean: np.ndarray, covariance: np.ndarray, where: str) -> Statistics:
    for name, array in (("mu", mean), ("sigma", covariance)):
        if not np.isfinite(array).all():
            raise UserError(f"{where}: {name} has numbers that are not finite")
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if np.abs(covariance - covariance.T).max() > _UNEVEN * np.abs(covariance).max() or covariance.diagonal().min() < 0:
        raise UserError(f"{where}: sigma is no covariance: it is not symmetric, or has a variance below 0")
    return Statistics(mean, covariance)


def _count(value: object, where: str) -> int:
    if not is_count(value, 2):
        raise UserError(f"{where}: num_images is {shown(value)}: a number of images is needed")
    assert isinstance(value, int)
    return value


def _about(text: str, where: str) -> dict[str, str]:
    value = parse_json(text.encode("utf-8", "surrogatepass"), f"{where}: about")
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise UserError(f"{where}: about is no JSON object of texts")
    return value


_FLOATS = ("f8", "f4")
_STATISTICS = Allowed(
    called=array_rules(*_FLOATS, "i8"),
    named=frozenset({"numpy.ndarray"}),
    built={NumberType: set_order, PickledArray: fill},
    bytearrays=True,
)
