"""A folder in the layout of diffusers: `model_index.json`, and a subfolder for each part.

One rule for links, whoever asks: in a folder that a user names, links to regular files and to folders are followed, as
by every library that opens it, since downloads and stores of models are made of them. What a file *names* never leads
out of its folder: shards have plain names. An export has no links, it reads through those of its teacher. Of links that
lead out of a subfolder it takes those alone that have the name of a file which such a part has; so a link to something
private, in a folder that somebody else made, is not published.
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sid_jax.errors import UserError
from sid_jax.formats.bundle import Bundle
from sid_jax.formats.clip_tokenizer import TOKENIZER_FILES, read_tokenizer
from sid_jax.formats.hub import INDEX, locate
from sid_jax.formats.marker import MARKER, about
from sid_jax.formats.safetensors_files import WeightFiles, open_weights
from sid_jax.formats.weight_names import STEMS
from sid_jax.runtime.storage.json_files import read_json

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

_OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")
_WHOLE = ("model.safetensors", "preprocessor_config.json")  # one of these makes an optional component usable
_KNOWN = ("config.json", *TOKENIZER_FILES, *_WHOLE)

_log = logging.getLogger(__name__)


class DiffusersFolder(Bundle):
    """A folder here, or a hub repository, of which files are fetched when they are asked for.

    Args:
      source: the folder, or the id `organisation/name` of a repository.
      variant: of the weights, such as "fp16".
      revision: branch, tag or commit of a repository.

    Raises:
      UserError: there is no such folder or repository, or its index is damaged.
    """

    folder: Path

    def __init__(self, source: str, variant: str = "", revision: str = "main"):
        self.source, self._variant = source, variant
        self.folder = locate(source, weights=(), variant=variant, revision=revision)
        self._revision = self.folder.name if self.folder.parent.name == "snapshots" else revision
        self.index = read_json(self.folder / INDEX)
        self.kind, self.kind_at = self.index.get("_class_name"), f"{self.folder / INDEX}: _class_name"
        self.about, self.about_at = about(self.folder), str(self.folder / MARKER)

    def config(self, part: str) -> dict[str, Any]:
        """The contents of the part's `config.json`, the scheduler's `scheduler_config.json`, or the index itself."""
        return dict(self.index) if part == INDEX else read_json(Path(self.config_at(part)))

    def config_at(self, part: str) -> str:
        """The path of that file."""
        if part == INDEX:
            return str(self.folder / INDEX)
        return str(self.folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json"))

    def check_class(self, part: str, allowed: tuple[str, ...]) -> None:
        """Raises UserError if the index names another class, or none."""
        entry = self.index.get(part)
        if not (isinstance(entry, list) and len(entry) == 2 and entry[1] in allowed):
            raise UserError(f"{self.folder / INDEX}: {part} is {entry!r:.200}; a {' or '.join(allowed)} is needed")

    def weights(self, part: str) -> WeightFiles:
        """The safetensors files of a part."""
        stem = STEMS["transformers" if self.index[part][0] == "transformers" else "diffusers"]
        # The commit that the configurations are of, should a branch have moved meanwhile.
        folder = locate(self.source, weights=[(part, stem)], variant=self._variant, revision=self._revision)
        return open_weights(folder / part, stem, self._variant)

    def tokenizer(self, part: str) -> "CLIPTokenizer":
        """CLIP's tokenizer in a subfolder."""
        self.check_class(part, ("CLIPTokenizer", "CLIPTokenizerFast"))
        return read_tokenizer(self.folder / part)


def copy_files(source: Path, target: Path) -> None:
    """Copies configurations, texts and safetensors of a subfolder; pickles are not copied.

    Links are read through. One that leads out of the subfolder is copied if it has the name of a file that such parts
    have; another one is left out, and one line says so.
    """
    target.mkdir()
    for file in sorted(source.iterdir()):
        if not file.is_file() or not (file.suffix in (".json", ".txt") or file.name in _WHOLE):
            continue
        if file.name not in _KNOWN and not file.resolve().is_relative_to(source.resolve()):
            _log.warning("%s is a link out of its folder and no file of a pipeline: it is not copied", file)
            continue
        shutil.copyfile(file, target / file.name)


def copy_optional(source: Path, target: Path) -> None:
    """Copies the components that have to do with the safety checker, of those that are whole."""
    present = {name for name in _OPTIONAL if any((source / name / file).is_file() for file in _WHOLE)}
    if "feature_extractor" not in present:  # without which a pipeline does not take its safety checker
        present.discard("safety_checker")
    for name in sorted(present):
        copy_files(source / name, target / name)


def index_without_missing(folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    """An index with null for the components that are not in `folder`."""
    present = {entry.name for entry in folder.iterdir()}
    changed = {
        name: [None, None] if isinstance(value, list) and name not in present else value
        for name, value in index.items()
    }
    if changed.get("safety_checker") == [None, None]:
        changed["requires_safety_checker"] = False
    return changed
