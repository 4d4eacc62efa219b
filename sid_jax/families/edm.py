"""EDM's networks in pixels (Karras et al. 2022, arXiv 2206.00364): teachers, and students in their form."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from sid_jax.errors import UserError
from sid_jax.families.edm_card import card_of_network, card_of_student
from sid_jax.families.edm_recorded import check_recorded
from sid_jax.formats.bundle import Bundle
from sid_jax.formats.edm_folder import FILES, Description, write_network
from sid_jax.formats.edm_pickle import PART, PRECONDITIONERS
from sid_jax.formats.export_folder import Layout, exported
from sid_jax.models.edm.augment import LABELS, augment
from sid_jax.models.edm.config import PrecondConfig, iddpm_levels
from sid_jax.sid import EDM
from sid_jax.teachers import component_of
from sid_jax.teachers.component import Component
from sid_jax.teachers.conditions import LabelConditions
from sid_jax.teachers.samplers.heun import Churn, Heun
from sid_jax.teachers.space import PixelSpace
from sid_jax.teachers.teacher import Export, Sampler, Teacher

KINDS = PRECONDITIONERS
DISTILLED = ("EDMPrecond",)
"""Of these the published method is; the others are sampled from, to compare with."""

_LAYOUT = Layout("a folder of a network of EDM's", "another network", FILES)
_STEPS = {32: 18, 64: 40}  # by side of the images, as the published teachers are measured
_IMAGENET_STEPS, _IMAGENET_CHURN = 256, Churn(40, 0.05, 50, 1.003)


def open_teacher(bundle: Bundle) -> Teacher:
    """The teacher in a source, its parameters abstract.

    Raises:
      UserError: the network is not supported, or its file records that it computes something else than ours.
    """
    denoiser = component_of(bundle, PART, bundle.kind)
    check_recorded(denoiser, bundle.recorded, bundle.source)
    return teacher_of(denoiser, bundle)


def teacher_of(denoiser: Component, bundle: Bundle | None = None) -> Teacher:
    """The teacher that a network is.

    Args:
      denoiser: the network.
      bundle: where it is from; None: it was made here.
    """
    config: PrecondConfig = denoiser.config
    process = EDM(sigma_data=getattr(config, "sigma_data", EDM.sigma_data))
    return Teacher(
        denoiser=denoiser,
        process=process,
        conditions=LabelConditions(config.label_dim),
        space=PixelSpace(config.img_resolution, config.img_channels),
        sampler=functools.partial(sampler_of, denoiser.class_name, config, process),
        write=functools.partial(_write_student, denoiser, bundle),
        augment=_augment if config.network.augment_dim == LABELS else None,
    )


def _augment(key: jax.Array, images: jax.Array, probability: float) -> tuple[jax.Array, dict[str, jax.Array]]:
    """See `teachers.teacher.Augment`."""
    images, labels = augment(key, images, probability)
    return images, {"augment_labels": labels}


def sampler_of(
    kind: str, config: PrecondConfig, process: EDM, steps: int | None = None, guidance: float | None = None
) -> Sampler:
    """Heun's sampler of a teacher, by default with the number of steps that such teachers are measured with.

    Noise is added for the network of ImageNet in its 256 steps alone: with fewer steps it would be too much.

    Raises:
      UserError: a guidance other than 1, or no number of steps.
    """
    if guidance not in (None, 1):
        raise UserError(f"a guidance of {guidance} is given, and teachers of this kind have none: leave it out, or 1")
    low, high = config.sigma_range
    is_imagenet = config.model_type == "DhariwalUNet" and config.label_dim == 1000
    usual = _IMAGENET_STEPS if is_imagenet else _STEPS[32 if config.img_resolution <= 32 else 64]
    return Heun(
        num_steps=usual if steps is None else steps,
        sigma_min=max(process.sigma_min, low),
        sigma_max=min(process.sigma_max, high),
        rho=process.rho,
        churn=_IMAGENET_CHURN if is_imagenet and steps in (None, usual) else Churn(),
        levels=tuple(iddpm_levels().tolist()) if kind == "iDDPMPrecond" else (),
    )


def save_network(
    folder: str | Path,
    denoiser: Component,
    description: Description,
    *,
    said: Mapping[str, Any],
    card: str,
    source: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a network as a folder of EDM's, all of it or nothing, in float32.

    Args:
      folder: where to.
      denoiser: the network; its tensors are read from its files where there are some.
      description: what `config.json` says.
      said: facts for `sid_jax.json`: of a student its `config` and `step`.
      card: the README.md.
      source: the folder or the file that is read from meanwhile.
      overwrite: replace such a folder too that was not written here, or was changed since.

    Raises:
      UserError: the folder can't be written, or holds something else; or files of the network are unusable.
    """
    with exported(Path(folder), _LAYOUT, source=source, overwrite=overwrite) as new:
        write_network(new, description, *denoiser.state_dict(), said)
        (new / "README.md").write_text(card, encoding="utf-8")


def _write_student(
    denoiser: Component, bundle: Bundle | None, folder: str | Path, student: Export, *, overwrite: bool = False
) -> None:
    """Writes a student of a teacher; see `teachers.teacher.Writer`."""
    made = denoiser.load_constants().made_of(student.params)
    start = float(student.sampler.start)
    licence, place = (bundle.licence, _place_of(bundle)) if bundle else ("", None)
    description = Description(denoiser.class_name, denoiser.config_json, start, licence)
    said = {"config": dict(student.settings), "step": student.step}
    card = card_of_student(student, description)
    save_network(folder, made, description, said=said, card=card, source=place, overwrite=overwrite)


def convert(bundle: Bundle, folder: str | Path, *, licence: str | None = None, overwrite: bool = False) -> None:
    """Writes the network of a source as a folder, as it is: the tensors of the file, in float32.

    Args:
      bundle: the source.
      folder: where to; it appears whole or not at all.
      licence: of the weights, instead of what is known of it.
      overwrite: replace such a folder too that was not written here, or was changed since.

    Raises:
      UserError: the source is not such a network, or is not whole; or the folder can't be written.
    """
    if bundle.kind not in KINDS:
        raise UserError(f"{bundle.kind_at} is {bundle.kind!r:.200}; what is converted are {', '.join(KINDS)}")
    teacher = open_teacher(bundle)
    denoiser = teacher.denoiser
    known = bundle.licence if licence is None else licence
    description = Description(bundle.kind, denoiser.config_json, teacher.process.default_start(1), known)
    card = card_of_network(bundle.source, description)
    place = _place_of(bundle)
    save_network(folder, denoiser, description, said=bundle.about, card=card, source=place, overwrite=overwrite)


def _place_of(bundle: Bundle) -> Path:
    """The folder or the file that the weights are in."""
    return bundle.folder or bundle.weights(PART).where
