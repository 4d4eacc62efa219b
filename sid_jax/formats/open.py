"""A source that a user names to a Bundle, whatever its format."""

from pathlib import Path

from sid_jax.errors import UserError
from sid_jax.formats.bundle import Bundle
from sid_jax.formats.diffusers_folder import DiffusersFolder
from sid_jax.formats.edm_folder import EDMFolder, is_edm_folder
from sid_jax.formats.edm_pickle import EDMPickle
from sid_jax.formats.edm_sources import is_pickle, locate_pickle
from sid_jax.runtime.storage.small_files import shown


def open_bundle(source: str, *, variant: str = "", revision: str = "main") -> Bundle:
    """Opens a source, in the format of what is there; no tensor is read.

    Args:
      source: a folder that diffusers wrote, or its hub id; a pickle of EDM, SiD or SiDA, here or on the hub
        (`organisation/name/path/to/file.pkl`); or a folder that a pickle was converted to.
      variant: of the weights; "fp16" reads `*.fp16.safetensors`.
      revision: branch, tag or commit of a hub id.

    Raises:
      UserError: one line that says what is wrong, with which file, and what to do.
    """
    try:
        pickle, folder = is_pickle(source), Path(source.removeprefix("file://")).expanduser()
        edm = not pickle and folder.is_dir() and is_edm_folder(folder)
    except OSError as error:  # a name of thousands of letters, or a folder above that may not be looked into
        raise UserError(f"{shown(source)}: cannot be opened ({error.strerror or error})") from error
    except (ValueError, RuntimeError) as error:  # a NUL in it; the home of nobody
        raise UserError(f"{shown(source)}: nothing can have this name ({error})") from error
    if pickle:
        if variant:
            raise UserError(f"{shown(source)}: a pickle has no variants; leave the config's key variant empty")
        return EDMPickle(locate_pickle(source, revision), source)
    return EDMFolder(folder, source, variant) if edm else DiffusersFolder(source, variant, revision)
