"""Images to the features of Inception: its weights, found or fetched, and its program on a mesh."""

import functools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from huggingface_hub import is_offline_mode

from sid_jax.errors import UserError
from sid_jax.evaluation.feed import Feed
from sid_jax.evaluation.transforms import VARIANTS, network_input
from sid_jax.formats.bundle import Tensors
from sid_jax.formats.fingerprint import digest_of_tensors
from sid_jax.formats.finite import is_finite
from sid_jax.formats.release import CACHE, Unfetched, cache_folder, fetch, sha256_of
from sid_jax.formats.safetensors_files import open_weights, write_weights
from sid_jax.formats.state_dict import Stored, from_params, layout, to_params
from sid_jax.formats.torch_file import SUFFIXES, open_torch_file
from sid_jax.models.inception import FEATURES, InceptionV3
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.storage.files import on_disk

RELEASE = {
    "pt_inception-2015-12-05-6726825d.pth": "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights",
    "weights-inception-2015-12-05-6726825d.pth": "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0",
}
"""The released file's two names, and where each is: the same file, whose SHA-256 begins with `DIGEST`."""
DIGEST = "6726825d"
STEM = "inception-2015-12-05"
"""The name in the cache, without its suffix, of what the released file is converted into."""

_MOST_BYTES = 200 << 20  # the released file has 96 MB
_WHAT = "Inception-2015"


@dataclass(frozen=True, eq=False)
class Inception:
    """Parameters of the network.

    params: float32, on the host; `nnx.state` of an `InceptionV3`.
    where: the file.
    released: whether it is the published one; None where that can't be told, as of a safetensors file of somebody's.
    """

    params: nnx.State
    where: str
    released: bool | None

    @functools.cached_property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of all tensors with their names: the same whatever kind of file they are in."""
        return digest_of_tensors(sorted(from_params(abstract_inception(), self.params)))


@functools.cache
def abstract_inception(on_cpu: bool = False) -> InceptionV3:
    """The network without memory for its parameters, in its form for CPUs or in its plain one; not to be changed."""
    network: InceptionV3 = nnx.eval_shape(lambda: InceptionV3(nnx.Rngs(0), on_cpu))
    return network


def open_inception(place: str | os.PathLike = "") -> Inception:
    """The parameters of Inception-2015.

    Args:
      place: a state dict, `.pth` in either of PyTorch's forms or `.safetensors`. Empty: what is in the cache
        (`release.cache_folder`), else the released file, which is fetched and converted into the cache once.

    Raises:
      UserError: the file is missing or damaged, or is of another network; or there is none in the cache and the release
        can't be reached: it says what to download, and where to put it.
    """
    if not os.fspath(place):
        return _cached()
    file = on_disk(place, "the weights of Inception")
    if file.is_dir():
        raise UserError(f"{file}: a folder; name the file of Inception's weights in it (.pth or .safetensors)")
    if file.suffix in SUFFIXES:
        return _read(open_torch_file(file), released=sha256_of(file).startswith(DIGEST))
    if file.suffix == ".safetensors":
        return _read(open_weights(file.parent, file.stem), released=None)
    raise UserError(f"{file}: Inception's weights are read from .pth or .safetensors; {_elsewhere()}")


class InceptionFeatures:
    """Images to features and logits, in float32, each image on one device of a mesh.

    It is one program for each size of images and of batches; see `Feed` for those of the host.

    Args:
      network: its parameters.
      variant: how the images become the network's input: "tf1", "torch", "clean" or "patch", see `transforms`.
      mesh: the devices; all their processes call this.
    """

    def __init__(self, network: Inception, variant: str, mesh: jax.sharding.Mesh) -> None:
        if variant not in VARIANTS:
            raise ValueError(f"{variant!r} is not one of {', '.join(VARIANTS)}")
        self.width = FEATURES
        self._params = meshes.place(network.params, meshes.replicated(mesh))
        graph = nnx.graphdef(abstract_inception(meshes.platform(mesh) == "cpu"))
        self._program = jax.jit(
            functools.partial(features_of, graph, variant),
            in_shardings=(meshes.replicated(mesh), meshes.batch_sharding(mesh)),
            out_shardings=meshes.replicated(mesh),
        )
        self._feed = Feed(mesh)

    def __call__(self, images: np.ndarray | jax.Array) -> tuple[np.ndarray, np.ndarray]:
        """Features of a batch, the same on every process.

        Args:
          images: uint8 `[B, H, W, 3]`: on the host, where every process has all of them; or on the devices, split as
            `mesh.batch_sharding` splits a batch.

        Returns:
          float32 `[B, 2048]`, which the FID is of, and the logits without bias, `[B, 1008]`.
        """
        count = len(images)
        pool, logits = self._program(self._params, self._feed(images))
        return np.asarray(pool)[:count], np.asarray(logits)[:count]

    def lower(self, batch: int, height: int, width: int) -> jax.stages.Lowered:
        """The program for images of a size, lowered and not compiled."""
        images = jax.ShapeDtypeStruct((batch, height, width, 3), np.uint8)
        return self._program.lower(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self._params), images)


def features_of(graph: Any, variant: str, params: nnx.State, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The program of `InceptionFeatures`: uint8 `[B, H, W, 3]` -> pooled features and logits without bias."""
    output = nnx.merge(graph, params)(network_input(images.astype(jnp.float32), variant))
    return output.pool, output.logits_without_bias


def _cached() -> Inception:
    folder = cache_folder()
    converted = folder / f"{STEM}.safetensors"
    if not converted.is_file():
        source = next((folder / name for name in RELEASE if (folder / name).is_file()), None)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as scratch:
                _convert(source or _fetched(Path(scratch)), Path(scratch)).replace(converted)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written ({error.strerror or error}); {CACHE}=FOLDER moves it"
            ) from error
    return _read(open_weights(folder, STEM), released=True)


def _fetched(folder: Path) -> Path:
    """The released file, in a folder; a place that can't be reached gives way to the other one."""
    reasons = []
    for name, address in RELEASE.items():
        if is_offline_mode():
            reasons.append("HF_HUB_OFFLINE is set")
            break
        try:
            fetch(f"{address}/{name}", folder / name, DIGEST, _MOST_BYTES)
            return folder / name
        except Unfetched as error:
            reasons.append(str(error))
    missing = f"Inception's weights are not in {cache_folder()} and can't be fetched ({reasons[0]})"
    raise UserError(f"{missing}; {_elsewhere()}")


def _elsewhere() -> str:
    name, address = next(iter(RELEASE.items()))
    named = "or name the file (--inception, config key evaluate.inception)"
    return f"download {address}/{name} and put it into {cache_folder()}, {named}"


def _convert(source: Path, folder: Path) -> Path:
    """The released file as one of safetensors in a folder."""
    found = sha256_of(source)
    if not found.startswith(DIGEST):
        raise UserError(f"{source}: not the released file, as its SHA-256 is {found}; fetch it again, or name it")
    read = _read(open_torch_file(source), released=True)
    module = abstract_inception()
    stored = {name: Stored(slot.shape, "float32") for name, slot in layout(module).items()}
    write_weights(folder, STEM, stored, from_params(module, read.params))
    return folder / f"{STEM}.safetensors"


def _read(weights: Tensors, released: bool | None) -> Inception:
    where = str(weights.where)
    params = to_params(
        abstract_inception(),
        weights.stored,
        _finite(weights, where),
        where=where,
        dtype=np.float32,
        place=lambda path, array: np.ascontiguousarray(array),
        network=_WHAT,
    )
    return Inception(params, where, released)


def _finite(weights: Tensors, where: str) -> Iterator[tuple[str, np.ndarray]]:
    for name, array in weights.tensors():
        if array.dtype.kind not in "iub" and not is_finite(array):
            raise UserError(f"{where}: tensor {name} has values that are not finite")
        yield name, array
