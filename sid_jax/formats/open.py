"""A source that a user names to a Bundle, whatever its format."""

from sid_jax.formats.bundle import Bundle
from sid_jax.formats.diffusers_folder import DiffusersFolder


def open_bundle(source: str, *, variant: str = "", revision: str = "main") -> Bundle:
    """Opens a source; no tensor is read.

    Args:
      source: a folder that diffusers wrote, or a hub id.
      variant: of the weights; "fp16" reads `*.fp16.safetensors`.
      revision: branch, tag or commit of a hub id.

    Raises:
      UserError: one line that says what is wrong, with which file, and what to do.
    """
    return DiffusersFolder(source, variant, revision)
