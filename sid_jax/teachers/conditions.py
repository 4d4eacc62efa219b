"""What a teacher is conditioned on: prompts, by text encoders or from a cache, or class labels."""

import dataclasses
import functools
import hashlib
import json
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import jax
import numpy as np
from flax import nnx

from sid_jax.data.labels import NO_LABEL, LabelStream
from sid_jax.data.pairs import PairSource
from sid_jax.data.prompts import as_prompt, read_prompt_file, read_prompts
from sid_jax.data.streams import ConditionStream, Stream
from sid_jax.errors import UserError
from sid_jax.formats.fingerprint import digest_of
from sid_jax.models import CLIPTextConfig
from sid_jax.size import Resolution
from sid_jax.teachers.component import Component, WithoutNetworks

_RANGE_OF_CLASSES = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")

Asked = Sequence[Any]
"""What is asked for, one of it for each image: prompts, or labels."""


class Conditions(Protocol):
    """How what is asked for becomes what the denoiser is conditioned on.

    noun: what is asked for, in the plural, as users call it.
    parts: the networks it takes, whose parameters are the `params` of `encode_condition`.
    files: what it reads besides those, such as tokenizers.
    """

    @property
    def noun(self) -> str: ...

    @property
    def parts(self) -> tuple[Component, ...]: ...

    @property
    def files(self) -> tuple[Path, ...]: ...

    def with_parts(self, parts: tuple[Component, ...]) -> Self:
        """The same with other networks, or the same networks with parameters."""
        ...

    def asked(self, text: str | None, *, file: bool = False) -> list[Any]:
        """What a user asks for in words; None: nothing in particular.

        `file`: the text must be the name of a file, where such can be read at all.

        Raises:
          UserError: it can't be understood, or read; or there has to be a text.
        """
        ...

    def chosen(self, wanted: Any) -> list[Any]:
        """What a program asks for: one of it, or a list; None: nothing in particular.

        Raises:
          UserError: there is no such thing, or there has to be something.
        """
        ...

    def stream(self, asked: Asked, batch: int, seed: int, rows: Sequence[int] | None = None) -> Stream:
        """The endless stream that a run reads, of what `read` gives."""
        ...

    def check_pairs(self, source: PairSource) -> None:
        """Checks that real images are of what can be asked for. Raises UserError where they are of something else."""
        ...

    def read(self, asked: Asked) -> Any:
        """A tree of numpy arrays `[B, ...]` for what is asked for."""
        ...

    def empty(self) -> Any:
        """The same for nothing in particular, the unconditional case, with a batch axis of 1."""
        ...

    def encode_condition(self, params: tuple[Any, ...], read: Any, resolution: Resolution) -> dict[str, Any]:
        """What was read -> the keyword arguments of the denoiser; pure, a part of compiled programs."""
        ...

    def digest(self) -> str:
        """What identifies what `read` and `encode_condition` make of prompts or labels."""
        ...


class Tokenizer(Protocol):
    """What is asked of a tokenizer of transformers."""

    model_max_length: int

    def __call__(self, texts: list[str], *, padding: str, truncation: bool, max_length: int) -> Any: ...


def token_ids(tokenizer: Tokenizer, texts: list[str], config: CLIPTextConfig, where: str) -> np.ndarray:
    """Texts as a text encoder reads them: int32 `[B, L]`, longer ones cut and shorter ones padded.

    Args:
      tokenizer: of the texts.
      texts: B of them.
      config: the text encoder's.
      where: what error messages call it.

    Raises:
      UserError: the text encoder does not have an id.
    """
    length = min(tokenizer.model_max_length, config.max_position_embeddings)
    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=length)
    ids = np.asarray(encoded["input_ids"], np.int32)
    if ids.max(initial=0) >= config.vocab_size:
        raise UserError(
            f"{where}: token {ids.max()} of the tokenizer is beyond the text encoder's {config.vocab_size} words"
        )
    return ids


@dataclasses.dataclass(frozen=True, eq=False)
class PromptConditions:
    """Prompts, which text encoders read in every update.

    Attributes:
      text_encoders: the networks.
      tokenizers: one for each.
      combine: (outputs of the encoders, a function that says which of the batch's prompts are empty, `[B]` bool, the
        resolution) -> the keyword arguments of the denoiser.
      facts: further JSON values that the result depends on, for `digest`.
      files: of the tokenizers.
    """

    text_encoders: tuple[Component, ...]
    tokenizers: tuple[Tokenizer, ...]
    combine: Callable[[list[Any], Callable[[], jax.Array], Resolution], dict[str, Any]]
    facts: tuple[Any, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def noun(self) -> str:
        """Prompts."""
        return "prompts"

    @property
    def parts(self) -> tuple[Component, ...]:
        """The text encoders."""
        return self.text_encoders

    def with_parts(self, parts: tuple[Component, ...]) -> Self:
        """The same with other text encoders."""
        return dataclasses.replace(self, text_encoders=parts)

    def asked(self, text: str | None, *, file: bool = False) -> list[str]:
        """A prompt, or those of a file with one a line. Raises UserError for None."""
        if text is None:
            raise UserError("the teacher takes prompts: name one, or a file with one a line")
        return read_prompt_file(text) if file else read_prompts(text)

    def chosen(self, wanted: Any) -> list[str]:
        """A prompt, or a list of them; no file is read. Raises UserError for anything else."""
        prompts = [wanted] if isinstance(wanted, str) else list(wanted) if isinstance(wanted, Iterable) else []
        if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise UserError(f"prompts is {wanted!r:.80}: the teacher takes prompts: give a text, or a list of texts")
        return [as_prompt(prompt) for prompt in prompts]

    def stream(self, asked: Asked, batch: int, seed: int, rows: Sequence[int] | None = None) -> Stream:
        """Shuffled anew in each epoch."""
        return ConditionStream(asked, batch, seed, self.read, rows)

    def check_pairs(self, source: PairSource) -> None:
        """Captions are needed."""
        if source.classes is not None:
            raise UserError(f"real.source has {source.name}, without captions, which the teacher needs: use others")

    def read(self, asked: Asked) -> tuple[np.ndarray, ...]:
        """Token ids `[B, L]` in int32, one array for each text encoder; L is 77 for every published one.

        Longer prompts are cut, shorter ones padded. Raises UserError for an id that the text encoder does not have.
        """
        arrays = []
        for tokenizer, component in zip(self.tokenizers, self.text_encoders, strict=True):
            place = component.where or component.class_name
            arrays.append(token_ids(tokenizer, list(asked), component.config, place))
        return tuple(arrays)

    def empty(self) -> tuple[np.ndarray, ...]:
        """The empty prompt's."""
        return self.read([""])

    def encode_condition(self, params: tuple[Any, ...], read: Any, resolution: Resolution) -> dict[str, Any]:
        """The outputs of the text encoders, combined as the family does it."""
        outputs = [
            nnx.merge(component.graphdef, state, component.constants)(ids)
            for component, state, ids in zip(self.text_encoders, params, read, strict=True)
        ]
        return self.combine(outputs, functools.partial(self._is_empty, read), resolution)

    def digest(self) -> str:
        """Hexadecimal SHA-256 of the files of tokenizers and text encoders, and of the facts."""
        files = [*self.files, *(file for component in self.text_encoders for file in component.files())]
        digests = [digest_of(file).hex() for file in files]
        return hashlib.sha256(json.dumps([*self.facts, digests]).encode()).hexdigest()

    def _is_empty(self, read: Any) -> jax.Array:
        return jax.numpy.all(read[0] == self.empty()[0], axis=-1)


@dataclasses.dataclass(frozen=True, eq=False)
class CachedConditions(WithoutNetworks):
    """Conditions that were encoded before: what is read is the condition, and no network is needed.

    Attributes:
      source: what they were encoded by.
      cache: what is asked for -> the conditions, stacked.
    """

    source: Conditions
    cache: Callable[[Asked], Any]

    @property
    def noun(self) -> str:
        """As the source has it."""
        return self.source.noun

    def asked(self, text: str | None, *, file: bool = False) -> list[Any]:
        """As the source has it."""
        return self.source.asked(text, file=file)

    def chosen(self, wanted: Any) -> list[Any]:
        """As the source has it."""
        return self.source.chosen(wanted)

    def stream(self, asked: Asked, batch: int, seed: int, rows: Sequence[int] | None = None) -> Stream:
        """Of cached conditions."""
        return ConditionStream(asked, batch, seed, self.read, rows)

    def check_pairs(self, source: PairSource) -> None:
        """As the source has it."""
        self.source.check_pairs(source)

    def read(self, asked: Asked) -> Any:
        """The conditions themselves."""
        return self.cache(asked)

    def empty(self) -> Any:
        """The empty prompt's condition."""
        return self.cache([""])

    def encode_condition(self, params: tuple[Any, ...], read: Any, resolution: Resolution) -> dict[str, Any]:
        """Nothing is left to do."""
        del params, resolution
        condition: dict[str, Any] = read
        return condition

    def digest(self) -> str:
        """That of the source."""
        return self.source.digest()


@dataclasses.dataclass(frozen=True, eq=False)
class LabelConditions(WithoutNetworks):
    """Class labels 0..count-1; -1 stands for none. The denoiser takes them as `class_labels`, int32 `[B]`.

    A teacher without labels has count 0: all its images are of -1, the class without a name.
    """

    count: int

    @property
    def noun(self) -> str:
        """Classes."""
        return "classes" if self.count else "class, as the teacher has no labels"

    def asked(self, text: str | None, *, file: bool = False) -> list[int]:
        """Labels and ranges of them, "0-4,7"; an empty text, or None: all classes in turn.

        Raises:
          UserError: it is something else, or there is no such class.
        """
        del file
        labels: list[int] = []
        if text and not self.count:
            raise UserError(f"classes {text!r}: the teacher has no labels: name none")
        for piece in filter(None, (text or "").replace(" ", "").split(",")):
            if not (numbers := _RANGE_OF_CLASSES.fullmatch(piece)):
                raise UserError(f"classes {text!r}: write labels and ranges of them, such as 0-{self.count - 1} or 1,3")
            first, last = int(numbers[1]), int(numbers[2] or numbers[1])
            if max(first, last) >= self.count:
                raise UserError(f"classes {text!r}: the teacher has the classes 0 to {self.count - 1}")
            labels += range(first, last + 1)
        return labels or list(range(self.count)) or [NO_LABEL]

    def chosen(self, wanted: Any) -> list[int]:
        """A label or a list of them, or what `asked` understands.

        Raises:
          UserError: it is something else, or there is no such class.
        """
        if wanted is None or isinstance(wanted, str):
            return self.asked(wanted)
        try:
            labels = [operator.index(label) for label in (wanted if isinstance(wanted, Iterable) else [wanted])]
        except TypeError:
            raise UserError(f"classes {wanted!r:.80}: give labels, as int") from None
        if labels and min(labels) >= 0 and max(labels) < self.count:
            return labels
        known = f"the teacher has the classes 0 to {self.count - 1}" if self.count else "the teacher has no labels"
        raise UserError(f"classes {wanted!r:.80}: {known}")

    def stream(self, asked: Asked, batch: int, seed: int, rows: Sequence[int] | None = None) -> Stream:
        """Every class as often as any other; counted ones as often as they are counted."""
        return LabelStream(asked, batch, seed, self.read, rows)

    def check_pairs(self, source: PairSource) -> None:
        """As many classes as the teacher has are needed; where it has none, anything will do."""
        if not self.count:
            return
        if not source.classes:
            lacking = "captions" if source.classes is None else "no labels"
            raise UserError(
                f"real.source has {source.name}, with {lacking}: the teacher needs {self.count} classes "
                "(python -m sid_jax.dataset makes such data)"
            )
        if source.classes != self.count:
            raise UserError(
                f"real.source has {source.name}, with labels of {source.classes} classes, and the teacher has "
                f"{self.count}: they must be the same ones"
            )

    def read(self, asked: Asked) -> np.ndarray:
        """The labels as int32 `[B]`; those of a teacher without labels are all -1."""
        return np.asarray(asked, np.int32) if self.count else np.full(len(asked), NO_LABEL, np.int32)

    def empty(self) -> np.ndarray:
        """No class."""
        return self.read([NO_LABEL])

    def encode_condition(self, params: tuple[Any, ...], read: Any, resolution: Resolution) -> dict[str, Any]:
        """`class_labels`."""
        del params, resolution
        return {"class_labels": read}

    def digest(self) -> str:
        """Labels depend on nothing."""
        return f"labels {self.count}"
