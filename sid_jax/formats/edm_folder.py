"""A folder with one network under EDM's own names: `model.safetensors`, and `config.json`, which says what makes it.

It is what a pickle is converted to, and what students are exported as. `config.json` has `class_name` and
`init_kwargs`, of which the published code builds the network; `sigma_init`, the noise level that a student starts from;
and `licence`, under which the weights are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sid_jax.errors import UserError
from sid_jax.formats.bundle import Bundle
from sid_jax.formats.edm_pickle import check_part, kind_of
from sid_jax.formats.hub import INDEX
from sid_jax.formats.marker import MARKER, about
from sid_jax.formats.safetensors_files import WeightFiles, open_weights, write_weights
from sid_jax.formats.state_dict import Stored
from sid_jax.runtime.storage.json_files import read_json, write_json

CONFIG, STEM = "config.json", "model"
FILES = (CONFIG, f"{STEM}.safetensors")
"""By which such a folder is known."""


class Description(NamedTuple):
    """What `config.json` says.

    class_name: of the preconditioner.
    init_kwargs: what it was made with.
    sigma_init: the noise level that a student starts from.
    licence: under which the weights are; "" where nobody has said.
    """

    class_name: str
    init_kwargs: Mapping[str, Any]
    sigma_init: float
    licence: str


class EDMFolder(Bundle):
    """A folder of a network of EDM's.

    Args:
      folder: where it is.
      source: what the user named; by default the folder.
      variant: of the weights, such as "fp16".

    Raises:
      UserError: `config.json` is missing or damaged, or describes something else.
    """

    folder: Path

    def __init__(self, folder: Path, source: str = "", variant: str = ""):
        self.folder, self.source, self._variant = folder, source or str(folder), variant
        file = folder / CONFIG
        fields = read_json(file)
        self.kind, self.kind_at = kind_of(fields.get("class_name")), f"{file}: class_name"
        kwargs, licence = fields.get("init_kwargs"), fields.get("licence", "")
        if not isinstance(kwargs, dict):
            raise UserError(f"{file}: init_kwargs is {kwargs!r:.80}; a JSON object is needed")
        if not isinstance(licence, str):
            raise UserError(f"{file}: licence is {licence!r:.80}; a text is needed")
        self._config, self.licence = kwargs, licence
        self.about, self.about_at = about(folder), str(folder / MARKER)

    def config(self, part: str) -> dict[str, Any]:
        """`init_kwargs`."""
        check_part(part)
        return dict(self._config)

    def config_at(self, part: str) -> str:
        """The path of `config.json`."""
        check_part(part)
        return str(self.folder / CONFIG)

    def check_class(self, part: str, allowed: tuple[str, ...]) -> None:
        """Raises UserError if the network is of another class."""
        check_part(part)
        if self.kind not in allowed:
            raise UserError(f"{self.kind_at} is {self.kind!r:.200}; a {' or '.join(allowed)} is needed")

    def weights(self, part: str) -> WeightFiles:
        """The tensors of the network."""
        check_part(part)
        return open_weights(self.folder, STEM, self._variant)

    def tokenizer(self, part: str) -> Any:
        """There is none."""
        raise UserError(f"{self.folder}: there is no tokenizer in it")


def is_edm_folder(folder: Path) -> bool:
    """Whether a folder is to be opened as one, by what is in it: the fields of `config.json`, or both files."""
    if (folder / INDEX).exists() or not (folder / CONFIG).is_file():
        return False
    try:
        return not {"class_name", "init_kwargs"}.isdisjoint(read_json(folder / CONFIG))
    except UserError:  # the network's own, as far as one can tell
        return (folder / FILES[1]).is_file()


def write_network(
    folder: Path, description: Description, stored: Mapping[str, Stored], tensors: Any, said: Mapping[str, Any]
) -> None:
    """Writes the files of a network into a new folder, its tensors in float32.

    Args:
      folder: where to, an existing folder.
      description: what `config.json` says.
      stored: shapes of the tensors, in the order of `tensors`.
      tensors: pairs of name and array.
      said: further facts for `sid_jax.json`.
    """
    write_json(folder / CONFIG, description._asdict())
    write_weights(folder, STEM, {name: Stored(entry.shape, "float32") for name, entry in stored.items()}, tensors)
    write_json(folder / MARKER, {**said, "written_by": "sid_jax"})
