"""What is asked of a model, to pictures: what the command `sample` and the Python API share."""

import dataclasses
import math
import operator
from collections.abc import Sequence
from typing import Any

from sid_jax.errors import UserError, user_errors_from
from sid_jax.experiment.images import ImageProgram, images_at_a_time
from sid_jax.experiment.student import Model
from sid_jax.sid import MOST_SEED
from sid_jax.teachers.teacher import Sampler

MOST_STEPS = 10_000  # of a sampler: a sample of so many would take hours
MOST_PICTURES = 2**31 - 1  # whose noises are told apart by an int32


@dataclasses.dataclass(frozen=True)
class Wanted:
    """How pictures are to be made.

    Attributes:
      n: pictures of each prompt or class.
      seed: of the noise.
      steps: of the sampler; None: as a student was trained, or as its family samples a teacher.
      guidance: of a teacher; None: its family's.
      dashes: what stands before these names in errors: "--" where they are flags.

    Raises:
      UserError: a number makes no sense.
    """

    n: int = 1
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    dashes: str = ""

    def __post_init__(self) -> None:
        for name in ("n", "seed", "steps"):
            value = getattr(self, name)
            if name != "steps" or value is not None:
                object.__setattr__(self, name, self._int(name, value))
        if self.n < 1:
            raise UserError(f"{self.dashes}n is {self.n}: use a positive number")
        if not 0 <= self.seed <= MOST_SEED:
            raise UserError(f"{self.dashes}seed is {self.seed}: use 0 to {MOST_SEED}")
        if self.steps is not None and self.steps > MOST_STEPS:
            raise UserError(f"{self.dashes}steps is {self.steps}: use at most {MOST_STEPS}")
        if self.guidance is not None and not math.isfinite(self.guidance):
            raise UserError(f"{self.dashes}guidance is {self.guidance}: use a finite number")

    def sampler(self, model: Model) -> Sampler:
        """The sampler of a model.

        Raises:
          UserError: the model can't be sampled so.
        """
        if model.student is None:
            return model.teacher.sampler(self.steps, self.guidance)
        if self.guidance is not None:
            raise UserError(f"{self.dashes}guidance is for teachers: a student is sampled without guidance")
        if self.steps is None:
            return model.student.sampler
        with user_errors_from(f"{self.dashes}steps"):
            return dataclasses.replace(model.student.sampler, num_steps=self.steps)

    def of_each(self, requests: Sequence[Any], in_turn: bool = False) -> "Repeated":
        """`n` of each that is requested, one after the other or in turn. Raises UserError where they are too many."""
        if len(requests) * self.n > MOST_PICTURES:
            raise UserError(
                f"{self.dashes}n is {self.n}: of {len(requests)} prompts or classes that is more than {MOST_PICTURES} "
                "pictures"
            )
        return Repeated(requests, self.n, in_turn)

    def _int(self, name: str, value: Any) -> int:
        try:
            return operator.index(value)
        except TypeError:
            raise UserError(f"{self.dashes}{name} is {value!r:.60}: use an int") from None


@dataclasses.dataclass(frozen=True)
class Repeated(Sequence[Any]):
    """Each of what is requested so many times, without a list of them all: one after the other, or in turn."""

    requests: Sequence[Any]
    times: int
    in_turn: bool

    def __len__(self) -> int:
        return len(self.requests) * self.times

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.requests[index % len(self.requests) if self.in_turn else index // self.times]


def program_of(model: Model, sampler: Sampler) -> ImageProgram:
    """What makes pictures with a model under a sampler, as many at a time as are usual for their size."""
    return ImageProgram(model.teacher, sampler, model.resolution, images_at_a_time(model.resolution))
