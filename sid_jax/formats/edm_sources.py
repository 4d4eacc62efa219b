"""Where pickles of EDM's networks come from: a file here, a file of a hub repository, or an address of NVIDIA's."""

import re
from pathlib import Path

from sid_jax.errors import UserError
from sid_jax.formats.hub import fetch_file, hub_file
from sid_jax.runtime.storage.files import is_remote
from sid_jax.runtime.storage.small_files import shown

SUFFIXES = (".pkl", ".pt")  # of the latter none is read, but what to take instead is said
_ADDRESS = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained"
_SIDES = {"cifar10-32x32": ("uncond-vp", "uncond-ve", "cond-vp", "cond-ve"), "imagenet-64x64": ("cond-adm",)}
_SIDES |= {name: ("uncond-vp", "uncond-ve") for name in ("ffhq-64x64", "afhqv2-64x64")}
_PUBLISHED = {
    f"{kind}-{images}-{variant}.pkl": folder
    for kind, folder in (("edm", ""), ("baseline", "/baseline"))
    for images, variants in _SIDES.items()
    for variant in variants
}
_LINK = re.compile(r"https?://\S+\.pkl")


def is_pickle(source: str) -> bool:
    """Whether a source is a pickle by its name, and no folder."""
    if not source.endswith(SUFFIXES):
        return False
    return bool(_LINK.fullmatch(source)) or not Path(source.removeprefix("file://")).expanduser().is_dir()


def locate_pickle(source: str, revision: str = "main") -> Path:
    """The file of a source: the file itself, or that of a hub repository, fetched or cached.

    Args:
      source: a path, or `organisation/name/path/to/file.pkl` on the hub.
      revision: branch, tag or commit of a repository.

    Raises:
      UserError: there is no such file. Of NVIDIA's it says how to fetch it.
    """
    if _LINK.fullmatch(source):
        raise UserError(f"{shown(source)}: addresses are not opened; fetch it with `{_curl(source)}` and name the file")
    if is_remote(source):
        raise UserError(f"{shown(source)}: models are read from a disk, or by hub id: copy it, or mount it")
    file = Path(source.removeprefix("file://")).expanduser()
    if file.exists():
        return file
    if file.name in _PUBLISHED:
        link = f"{_ADDRESS}{_PUBLISHED[file.name]}/{file.name}"
        raise UserError(f"{shown(source)}: no such file; fetch it with `{_curl(link)}` and name the file")
    found = hub_file(source)
    if found is None:
        raise UserError(f"{shown(source)}: no such file")
    return fetch_file(*found, revision)


def _curl(link: str) -> str:
    return f"curl -fLO {shown(link)}"
