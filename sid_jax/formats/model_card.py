"""The head of a model card, by which the hub lists, filters and links a model: YAML at the top of its README.md."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sid_jax.runtime.storage.small_files import Unreadable, read_small_text

CARD = "README.md"
_MOST_BYTES = 1 << 20
_FENCE = "---"
_FIELD = re.compile(r"(license|license_name|license_link): *[\"']?([^\"'#|>]+?)[\"']? *")
_LICENCES = (
    "apache-2.0", "mit", "openrail", "openrail++", "creativeml-openrail-m", "bigscience-openrail-m", "cc0-1.0",
    "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0",
    "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "bsd-2-clause", "bsd-3-clause",
    "gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl-3.0", "mpl-2.0", "unlicense",
)  # fmt: skip
"""Names that the hub has for licences, of those that weights of images' models are under."""


class Licence(NamedTuple):
    """What a card's head says of the licence; all empty where nobody has said.

    identifier: the hub's name of it, or "other".
    name: of another one.
    link: to its text.
    """

    identifier: str = ""
    name: str = ""
    link: str = ""

    @property
    def shown(self) -> str:
        """How a sentence calls it."""
        return self.name or self.identifier


def licence_named(text: str) -> Licence:
    """The licence that a text such as "CC BY-NC-SA 4.0" or "Apache-2.0" names, as the hub calls it."""
    words = "-".join(text.lower().split())
    if words in _LICENCES:
        return Licence(words)
    return Licence("other", re.sub(r"[^a-z0-9.+]+", "-", words).strip("-")[:80]) if words else Licence()


def licence_of(folder: Path | None) -> Licence:
    """The licence that the card in a folder states: none where there is no card, or none that can be read."""
    if folder is None:
        return Licence()
    try:
        first, *lines = read_small_text(folder / CARD, _MOST_BYTES).splitlines() or [""]
    except Unreadable:
        return Licence()
    if first.rstrip() != _FENCE:
        return Licence()
    head = lines[: lines.index(_FENCE)] if _FENCE in lines else []
    # Plain fields of a stranger's YAML. What is written in another form than that of the hub's cards is not taken.
    found = (_FIELD.fullmatch(line) for line in head)
    said = {match[1]: match[2] for match in found if match}
    identifier = said.get("license", "")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,60}", identifier):
        return Licence()
    return Licence(identifier, said.get("license_name", "")[:200], said.get("license_link", "")[:500])


def head(*, licence: Licence, source: str, pipeline_tag: str, library_name: str, tags: Sequence[str]) -> str:
    """The head of the card of a student, or of a teacher that was made here.

    Args:
      licence: of the weights.
      source: the teacher's name, which is the base model where it is a repository of the hub; "": it has none.
      pipeline_tag: the hub's name of the task.
      library_name: what opens the folder.
      tags: further ones.
    """
    from huggingface_hub import ModelCardData

    base = repository_of(source)
    link = licence.link
    if link and "://" not in link:  # a file in the teacher's repository
        link = f"https://huggingface.co/{base}/blob/main/{link}" if base else ""
    said = ModelCardData(
        license=licence.identifier or None,
        license_name=licence.name or None,
        license_link=link or None,
        base_model=base or None,
        pipeline_tag=pipeline_tag,
        library_name=library_name,
        tags=[*tags],
    )
    if base:
        said["base_model_relation"] = "finetune"  # of the hub's four the one that new weights are
    return f"{_FENCE}\n{said.to_yaml()}\n{_FENCE}\n"


def repository_of(source: str) -> str:
    """The hub's repository that a teacher's published name is, or is a file of; "" where it is neither."""
    return "/".join(source.split("/")[:2]) if "/" in source else ""
