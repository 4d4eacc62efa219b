"""Network configurations, read from the `config.json` that diffusers and transformers write.

Every field of the file is accounted for: it shapes the network, or it must have the one value that the network here
implements (`_REQUIRED`), or it has no part in the forward pass (`_INERT`, and `GENERAL`, of which one line says so).
Anything else is an error that names the field, so that no network is built that differs in silence from what the file
describes.
"""

import abc
import dataclasses
import logging
from collections.abc import Callable
from typing import Any, ClassVar, Self, get_args

GENERAL = frozenset({
    # Of the moving average that the weights are, as `EMAModel.save_pretrained` of diffusers writes them beside the
    # network's own fields.
    "cur_decay_value", "decay", "foreach", "inv_gamma", "max_value", "min_decay", "min_value", "optimization_step",
    "power", "update_after_step", "use_ema_warmup",
    # How a program holds the network and runs it, or where it is from.
    "attn_implementation", "dtype", "gradient_checkpointing", "name_or_path", "torch_dtype", "torchscript",
    "transformers_version", "use_bfloat16", "use_cache", "use_memory_efficient_attention_xformers",
    # What transformers asks of all its models: what a call returns, and what only others of them do: to decode, to
    # classify, to generate text.
    "architectures", "chunk_size_feed_forward", "cross_attention_hidden_size", "decoder_start_token_id",
    "finetuning_task", "id2label", "is_composition", "is_encoder_decoder", "label2id", "num_labels",
    "output_attentions", "output_hidden_states", "output_past", "prefix", "problem_type", "return_dict",
    "sep_token_id", "task_specific_params", "tf_legacy_loss", "tie_encoder_decoder", "tie_last_hidden_states",
    "tie_word_embeddings", "tokenizer_class", "use_return_dict", "xla_device",
    "assistant_confidence_threshold", "assistant_lookbehind", "bad_words_ids", "begin_suppress_tokens",
    "diversity_penalty", "do_sample", "early_stopping", "encoder_no_repeat_ngram_size", "encoder_repetition_penalty",
    "epsilon_cutoff", "eta_cutoff", "exponential_decay_length_penalty", "forced_bos_token_id",
    "forced_eos_token_id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size",
    "num_assistant_tokens", "num_assistant_tokens_schedule", "num_beam_groups", "num_beams", "num_return_sequences",
    "output_scores", "remove_invalid_values", "repetition_penalty", "return_dict_in_generate", "suppress_tokens",
    "target_lookbehind", "temperature", "top_k", "top_p", "typical_p",
})  # fmt: skip
"""Fields that have no part in the forward pass of any network here, whatever their values."""

_UNCHANGED: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False, None),
    "is_decoder": (False, None),
    "per_layer_config": (None, {}),
    "pruned_heads": (None, {}),
    "quantization_config": (None,),
}
"""General fields that describe another network than the rest of the file, but for these values."""

_LARGEST = 3e38  # of a float, which networks hold in 32 bits

_log = logging.getLogger(__name__)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list_of(value: Any, is_element: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and all(map(is_element, value))


_CHECKS: dict[Any, Callable[[Any], bool]] = {
    int: _is_int,
    float: lambda value: _is_int(value) or isinstance(value, float),
    bool: lambda value: isinstance(value, bool),
    str: lambda value: isinstance(value, str),
    tuple[int, ...]: lambda value: _is_list_of(value, _is_int),
    tuple[str, ...]: lambda value: _is_list_of(value, lambda element: isinstance(element, str)),
}
"""The types that a field may have, alone or in a union, and whether a value of a JSON file is of that type."""


def _check_types(name: str, field: dataclasses.Field, value: Any) -> Any:
    """Returns `value` in the type of `field` (lists become tuples, an object the configuration of a part).

    Raises ValueError where JSON holds another type.
    """
    if isinstance(field.type, type) and issubclass(field.type, JsonConfig):
        if not isinstance(value, dict):
            raise ValueError(f"{name}: field {field.name!r} must be an object, found {value!r:.200}")
        return field.type.from_dict(value)
    options = [field.type] if field.type in _CHECKS else list(get_args(field.type))
    for option in options:
        if option is type(None):
            if value is None:
                return None
        elif _CHECKS[option](value):
            if option is float and not abs(value) <= _LARGEST:
                raise ValueError(f"{name}: field {field.name!r} is {value!r:.80}; a finite number is needed")
            return tuple(value) if isinstance(value, list) else value
    expected = " or ".join("null" if o is type(None) else str(getattr(o, "__name__", o)) for o in options)
    raise ValueError(f"{name}: field {field.name!r} must be of type {expected}, found {value!r:.200}")


@dataclasses.dataclass(frozen=True)
class JsonConfig(abc.ABC):
    """Reading a configuration from a JSON object; the subclasses are frozen dataclasses."""

    _REQUIRED: ClassVar[dict[str, tuple[Any, ...]]] = {}
    _INERT: ClassVar[frozenset[str]] = frozenset()
    _MAY_BE_EMPTY: ClassVar[frozenset[str]] = frozenset()

    @property
    @abc.abstractmethod
    def num_layers(self) -> int:
        """How often the layers that repeat do so, added up. Readers limit it, since each layer is a Python object."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The configuration that a JSON object describes.

        Args:
          values: the object. Fields that are absent take diffusers' own defaults.

        Raises:
          ValueError: with one line that names the field: an unknown field, an ill-typed one, or a value that is not
            implemented.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        required = {**_UNCHANGED, **cls._REQUIRED}
        chosen: dict[str, Any] = {}
        left_out = []
        for key, value in values.items():
            if key in fields:
                chosen[key] = _check_types(cls.__name__, fields[key], value)
                if chosen[key] == () and key not in cls._MAY_BE_EMPTY:
                    raise ValueError(f"{cls.__name__}: field {key!r} is []; at least one value is needed")
            elif key in required:
                allowed = required[key]
                if value not in allowed or isinstance(value, bool) not in {isinstance(a, bool) for a in allowed}:
                    options = " or ".join(map(repr, allowed))
                    raise ValueError(f"{cls.__name__}: field {key!r} is {value!r:.200}; only {options} is supported")
            elif key in cls._INERT or key.startswith("_"):
                continue
            elif key in GENERAL:
                left_out.append(key)
            else:
                raise ValueError(f"{cls.__name__}: field {key!r:.200} (value {value!r:.200}) is not supported")
        if left_out:
            _log.info("%s: fields that have no part in the network are left out: %s", cls.__name__, ", ".join(left_out))
        return cls(**chosen)

    def _require(self, condition: bool, field: str, reason: str) -> None:
        if not condition:
            raise ValueError(f"{type(self).__name__}: field {field!r} is {getattr(self, field)!r:.200}; {reason}")

    def _require_positive(self, *fields: str) -> None:
        for field in fields:
            value = getattr(self, field)
            smallest = min(value) if isinstance(value, tuple) else value
            self._require(smallest > 0, field, "it must be positive")


class TransformerConfig(JsonConfig):
    """The configuration of a stack of equal layers of attention, by the names that transformers gives its fields."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    layer_norm_eps: float

    @property
    def num_layers(self) -> int:
        """Attention layers."""
        return self.num_hidden_layers

    def _require_layers(self) -> None:
        """Checks the layers of which all numbers are positive. Raises ValueError."""
        self._require(self.layer_norm_eps >= 0, "layer_norm_eps", "it must not be negative")
        even = self.hidden_size % self.num_attention_heads == 0
        self._require(even, "num_attention_heads", f"{self.hidden_size} hidden units don't split evenly")
