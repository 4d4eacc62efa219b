"""One network in a folder of its own, as `save_pretrained` of transformers writes it: here, or on the hub."""

from pathlib import Path

from sid_jax.errors import UserError
from sid_jax.formats.bundle import Tensors
from sid_jax.formats.clip_tokenizer import TOKENIZER_FILES
from sid_jax.formats.hub import fetch_patterns, is_repository_name, names_at
from sid_jax.formats.safetensors_files import open_weights
from sid_jax.formats.torch_file import open_torch_file
from sid_jax.formats.weight_names import STEMS, choose, weight_names
from sid_jax.runtime.storage.small_files import shown

_STEM = STEMS["transformers"]
_OLD_WEIGHTS = "pytorch_model.bin"  # a state dict, of which the restricted reader of torch files reads tensors alone
_TEXTS = ("config.json", *TOKENIZER_FILES)


def locate_network(source: str, *, revision: str = "main", weights: bool = True) -> Path:
    """The folder of a network.

    Args:
      source: a folder with `config.json`, or the id `organisation/name` of a hub repository, of which files are fetched
        or cached.
      revision: branch, tag or commit of a repository.
      weights: whether its parameters are needed, and not only its configuration and tokenizer.

    Raises:
      UserError: there is no such folder or repository, it cannot be reached, or it has no weights that are read.
    """
    try:
        folder = Path(source.removeprefix("file://")).expanduser()
        if folder.is_dir():
            return folder
        if folder.exists():
            raise UserError(f"{folder}: a file; name the folder of a network, which has config.json and its weights")
    except OSError as error:
        raise UserError(f"{shown(source)}: cannot be opened ({error.strerror or error})") from error
    except (ValueError, RuntimeError) as error:  # a NUL in it; the home of nobody
        raise UserError(f"{shown(source)}: no folder can have this name ({error})") from error
    if not is_repository_name(source):
        raise UserError(f"{shown(source)}: no such folder")
    if not weights:
        return fetch_patterns(source, revision, list(_TEXTS))
    return fetch_patterns(source, revision, [*_TEXTS, *_weights_wanted(source, revision)])


def open_network_weights(folder: Path) -> Tensors:
    """The tensors of the network in a folder: safetensors, else `pytorch_model.bin`; nothing is unpickled.

    Raises:
      UserError: there are none, or they are damaged.
    """
    old = folder / _OLD_WEIGHTS
    if old.is_file() and not any((folder / name).is_file() for name in weight_names(_STEM)):
        return open_torch_file(old)
    return open_weights(folder, _STEM)


def _weights_wanted(repository: str, revision: str) -> list[str]:
    """The files of a repository that have its weights."""
    shards = f"{_STEM}-?????-of-?????.safetensors"
    names = names_at(repository, revision)
    if names is None:  # the hub is out of reach, and what is in the cache must do
        return [*weight_names(_STEM), shards, _OLD_WEIGHTS]
    if _OLD_WEIGHTS in names and not set(weight_names(_STEM)) & set(names):
        return [_OLD_WEIGHTS]
    chosen, _ = choose([name for name in names if "/" not in name], _STEM, "", repository)
    return [chosen] if chosen.endswith(".safetensors") else [chosen, shards]
