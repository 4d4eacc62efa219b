"""A folder in the layout of diffusers: `model_index.json`, and a subfolder for each part."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sid_jax.errors import UserError
from sid_jax.formats.bundle import Bundle
from sid_jax.formats.hub import locate
from sid_jax.formats.safetensors_files import WeightFiles, inside, open_weights
from sid_jax.runtime.storage.json_files import read_json

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

INDEX = "model_index.json"
MARKER = "sid_jax.json"  # in every folder that is written here
STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
"""How each library calls a network's file of weights."""

_OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")
_WHOLE = ("model.safetensors", "preprocessor_config.json")  # one of these makes an optional component usable


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
        self.about = read_json(self.folder / MARKER) if is_export(self.folder) else {}

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
            raise UserError(f"{self.folder / INDEX}: {part} is {entry!r}; a {' or '.join(allowed)} is needed")

    def weights(self, part: str) -> WeightFiles:
        """The safetensors files of a part."""
        library = (self.index.get(part) or [None])[0]
        stem = STEMS.get(library, STEMS["diffusers"])
        # The commit that the configurations are of, should a branch have moved meanwhile.
        folder = locate(self.source, weights=[(part, stem)], variant=self._variant, revision=self._revision)
        return open_weights(folder / part, stem, self._variant)

    def tokenizer(self, part: str) -> "CLIPTokenizer":
        """CLIP's tokenizer in a subfolder."""
        from transformers import CLIPTokenizer  # here, as it takes seconds

        self.check_class(part, ("CLIPTokenizer", "CLIPTokenizerFast"))
        folder = self.folder / part
        files = {file.name for file in folder.glob("*")}
        # Without its vocabulary transformers would make up a tokenizer of three words.
        if "tokenizer.json" not in files and not {"vocab.json", "merges.txt"} <= files:
            raise UserError(f"{folder}: no vocab.json and merges.txt, nor tokenizer.json")
        try:
            return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # of any type, from the several parsers behind it
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{folder}: not the tokenizer of a CLIP text encoder ({reason[:300]})") from error


def is_export(folder: Path) -> bool:
    """Whether sid_jax has written `folder`."""
    file = folder / MARKER
    return file.is_file() and read_json(file).get("written_by") == "sid_jax"


def copy_files(source: Path, target: Path) -> None:
    """Copies configurations, texts and safetensors of a subfolder; pickles are not copied.

    Raises:
      UserError: one of them is a link out of the folder.
    """
    target.mkdir()
    for file in sorted(source.iterdir()):
        if file.is_file() and (file.suffix in (".json", ".txt") or file.name in _WHOLE):
            if not inside(source, file):
                raise UserError(f"{file}: a link out of its folder, which is not followed")
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
