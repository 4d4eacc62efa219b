"""From what a user names to a teacher: the one place that knows all families."""

from collections.abc import Callable
from typing import NamedTuple

from sid_jax import assets
from sid_jax.errors import UserError
from sid_jax.families import edm, stable_diffusion
from sid_jax.families.published import PUBLISHED, PublishedConfigs, PublishedEDM, published_edm
from sid_jax.formats.bundle import Bundle
from sid_jax.formats.open import open_bundle
from sid_jax.teachers.teacher import Teacher


class Family(NamedTuple):
    """A family of models.

    open: from a source to a teacher, whose parameters are abstract.
    section: the name of its section of the config's schema.
    distilled: whether the method is known for such teachers; else they are sampled from, and no more.
    """

    open: Callable[[Bundle], Teacher]
    section: str
    distilled: bool = True


FAMILIES = {
    **{kind: Family(stable_diffusion.open_teacher, "stable_diffusion") for kind in stable_diffusion.KINDS},
    **{kind: Family(edm.open_teacher, "edm", kind in edm.DISTILLED) for kind in edm.KINDS},
}
"""By what a source says that it is (`Bundle.kind`)."""


def open_teacher(bundle: Bundle, section: str | None = None) -> Teacher:
    """The teacher in a source, its parameters abstract: `Teacher.load` reads them.

    Args:
      bundle: the source.
      section: of the config's schema that the run has; None: no matter.

    Raises:
      UserError: no family has such models, it is another family than the config's, or the source is unusable.
    """
    family = FAMILIES.get(bundle.kind) if isinstance(bundle.kind, str) else None
    if family is None:
        raise UserError(f"{bundle.kind_at} is {bundle.kind!r:.200}; {' and '.join(FAMILIES)} are supported")
    if section not in (None, family.section):
        raise UserError(
            f"config key family is {section!r}, but the teacher {bundle.source} is of {family.section!r}: "
            f"start get_config() from sid_jax.config.default({family.section!r})"
        )
    if section is not None and not family.distilled:
        raise UserError(
            f"{bundle.kind_at} is {bundle.kind}: such teachers can be sampled from, but not distilled; of this family "
            f"{' or '.join(kind for kind, each in FAMILIES.items() if each.section == section and each.distilled)} can"
        )
    return family.open(bundle)


def open_source(source: str, *, variant: str = "", revision: str = "main") -> Bundle:
    """The source of that name, for its tensors: a folder here or a hub repository, or "bundled:NAME"."""
    return open_bundle(assets.resolve(source), variant=variant, revision=revision)


def open_configs(source: str, *, variant: str = "", revision: str = "main") -> tuple[Bundle, str]:
    """The source of that name, for its configurations alone, and where these are from.

    What is here is read; so is a hub repository, except those of `PUBLISHED`, for which no network is needed, as for
    NVIDIA's teachers of EDM, which are known by the names of their files.

    Raises:
      UserError: there is no such folder or repository.
    """
    if source in PUBLISHED and revision == "main":
        return PublishedConfigs(PUBLISHED[source]), "its published config.json, which comes with sid_jax"
    name = published_edm(source)
    if name:
        return PublishedEDM(name), "its published init_kwargs, which come with sid_jax"
    return open_source(source, variant=variant, revision=revision), "its config.json"
