"""The seam between families of models and all the rest: a teacher is six parts."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp

from sid_jax.formats.fingerprint import fingerprint
from sid_jax.formats.state_dict import Place
from sid_jax.sid import Condition, Denoiser, FewStep, Guidance, Noise, Process
from sid_jax.teachers.component import Component
from sid_jax.teachers.conditions import Conditions
from sid_jax.teachers.space import Space

PARTS = ("denoiser", "conditions", "space")
"""What of a teacher has parameters."""


class Sampler(Protocol):
    """How images are sampled: DDIM and its kind from a teacher, `FewStep` from a student.

    num_steps: as the sampler counts them; DDIM and `FewStep` evaluate the network once in each.
    guidance_scale: of classifier-free guidance; None where there is none, as for a student.
    """

    @property
    def num_steps(self) -> int: ...

    @property
    def guidance_scale(self) -> float | None: ...

    def generate(self, denoiser: Denoiser, noise: Noise, condition: Condition) -> jax.Array:
        """A sample `[B, H, W, C]` that starts from `noise(0)` of that shape."""
        ...


class SamplerFactory(Protocol):
    """The sampler that a family's teachers are used with; None: the family's own number of steps, and guidance."""

    def __call__(self, steps: int | None = None, guidance: float | None = None) -> Sampler: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Export:
    """A student, to be written in the form of its teacher.

    params: of the student's denoiser (G_ema), float32.
    sampler: how it is sampled.
    settings: the resolved config of its run, as JSON has it; of paths it has the last name alone.
    step: updates it was trained for.
    guidance: under which it was trained.
    """

    params: Any
    sampler: FewStep
    settings: Mapping[str, Any]
    step: int
    guidance: Guidance = dataclasses.field(default_factory=Guidance)


class Augment(Protocol):
    """Augments images, each transform with a probability, and says what a denoiser is told of it, by keyword."""

    def __call__(
        self, key: jax.Array, images: jax.Array, probability: float
    ) -> tuple[jax.Array, dict[str, jax.Array]]: ...


class Writer(Protocol):
    """Writes a student into a folder, whole or not at all. Raises UserError where that can't be."""

    def __call__(self, folder: str | Path, student: Export, *, overwrite: bool = False) -> None: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """A teacher, filled in by its family (`families/`); everything else asks nothing but this of it.

    denoiser: what is distilled; its module keeps the contract of `models.DenoiserModule`.
    process: the forward process that it was trained on.
    conditions: what it is conditioned on, such as prompts or labels.
    space: where it diffuses.
    sampler: how it is sampled.
    write: writes a student of it in the form of the source.
    augment: how the images were augmented that it was trained on, where its denoiser is told of that; else None.
    """

    denoiser: Component
    process: Process
    conditions: Conditions
    space: Space
    sampler: SamplerFactory
    write: Writer
    augment: Augment | None = None

    def load(self, *parts: str, dtype: jax.typing.DTypeLike | None = jnp.float32, place: Place | None = None) -> Self:
        """The same with the parameters of some of `PARTS` read from the files; see `Component.load`."""
        unknown = set(parts) - set(PARTS)
        if unknown:
            raise ValueError(f"{sorted(unknown)} are none of {PARTS}")
        changed: dict[str, Any] = {}
        if "denoiser" in parts:
            changed["denoiser"] = self.denoiser.load(dtype, place)
        for name in ("conditions", "space"):
            if name in parts:
                owner = getattr(self, name)
                changed[name] = owner.with_parts(tuple(part.load(dtype, place) for part in owner.parts))
        return dataclasses.replace(self, **changed)

    def fingerprints(self, *, denoiser: bool = True) -> dict[str, str]:
        """What tells this teacher from others, wherever it is: a fingerprint of each part, by the name of its folder.

        Those of networks and tokenizers are of their files (see `formats.fingerprint`); what is in no file has none.

        Args:
          denoiser: whether the denoiser's is among them, whose files are the largest and may have to be fetched.

        Raises:
          UserError: a file is missing or can't be read.
        """
        found = {}
        if dataclasses.is_dataclass(self.process):  # its numbers; one that has none is the same in every teacher
            numbers = json.dumps(dataclasses.asdict(self.process), sort_keys=True, default=repr)
            found["process"] = hashlib.sha256(numbers.encode()).hexdigest()
        networks = (*self.conditions.parts, *self.space.parts)
        for part in (self.denoiser, *networks) if denoiser else networks:
            if part.open_weights is not None:
                found[part.name] = fingerprint(part.files())
        for folder in dict.fromkeys(file.parent for file in self.conditions.files):
            found[folder.name] = fingerprint(file for file in self.conditions.files if file.parent == folder)
        return found
