"""Networks as NVlabs' EDM and SiD save them: a pickle, whose opcodes are interpreted and of which nothing is executed.

Such a file is a dict, whose `ema` is a network by its state: parameters, buffers and modules by name, and plain
attributes. Its classes come with their source, which NVIDIA's loader runs; here it is not even read.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sid_jax.errors import UserError
from sid_jax.formats.bundle import Bundle
from sid_jax.formats.finite import is_finite
from sid_jax.formats.legacy_storage import BEGINS, Blob, blob_of, values_of
from sid_jax.formats.opcodes import Allowed, LongText, Refused, Set, Unexpected, interpret, shown
from sid_jax.formats.pickled_arrays import NumberType, number_rules, set_order
from sid_jax.formats.state_dict import Stored
from sid_jax.formats.torch_tensors import PlacedTensors, Values, View, empty_dict, refusals, tensor_rules
from sid_jax.runtime.storage.impostors import FIRST_BYTES, what_it_is
from sid_jax.runtime.storage.small_files import reading_regular

PRECONDITIONERS = ("EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond")
PART = "denoiser"  # the one part of such a bundle

NVIDIA_LICENCE = "CC BY-NC-SA 4.0"
"""Of NVIDIA's files, and so of students of them. No file says it, and no other source of such pickles is known."""

_TEACHERS = ("edm-", "baseline-")  # NVIDIA's; with other names, SiD's students have `ema` alone, and EDM's have more
_TWIN = "_EncoderDecoder"  # SiDA's classes, of the same names of tensors and the same arithmetic
_VERSION = 6  # of NVIDIA's way to pickle classes
_MOST_TENSORS, _DEEPEST, _MOST_VALUES = 5000, 16, 1000
_SNAPSHOT = "name a network-snapshot-*.pkl of that run instead"
_META = {"type", "version", "module_src", "class_name", "state"}
_NOT_RECORDED = ("training",)


@dataclass(frozen=True, eq=False)
class Module:
    """A module in a file: its class, and what its `__dict__` had."""

    class_name: str
    state: dict[str, Any]


class _Container(Module):
    """A `ModuleDict` of PyTorch's, which is made first and then given its state."""


class PickledTensors(PlacedTensors):
    """The tensors of one network, in float32, in the order of PyTorch's state dict."""

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """See `PlacedTensors`. Raises UserError for one with values that are not finite."""
        for name, array in super().tensors():
            array = array.astype(np.float32, copy=False)
            if not is_finite(array):
                raise UserError(f"{self.where}: tensor {name} has values that are not finite (NaN or infinite)")
            yield name, array


class EDMPickle(Bundle):
    """A pickle of EDM, SiD or SiDA: a teacher or a student by its `ema`.

    Args:
      file: where it is.
      source: what the user named; by default the file.

    Attributes:
      recorded: of each module, by its path ("" is the network): its class as "class", and its plain attributes.

    Raises:
      UserError: there is no such file, or it is something else; one line with the file, the byte and the reason.
    """

    def __init__(self, file: Path, source: str = ""):
        self.file, self.source = file, source or str(file)
        with reading_regular(file) as opened, refusals(file):
            network, is_alone = _ema(opened)
            self.kind, self.kind_at = _kind(network), f"{file}: the class of ema"
            self._config = _config(network)
            self.recorded, views = _walk(network)
            self._tensors = PickledTensors(file, *_placed(opened, views))
        self.licence = NVIDIA_LICENCE
        if is_alone and not file.name.startswith(_TEACHERS):
            self.about, self.about_at = (
                _as_student(file.name, self._config),
                f"{file}: a student, as it has ema alone",
            )

    def config(self, part: str) -> dict[str, Any]:
        """What the network was made with: its `_init_kwargs`."""
        check_part(part)
        return dict(self._config)

    def config_at(self, part: str) -> str:
        """A name for what is in the file, below the file's own."""
        check_part(part)
        return str(self.file / "init_kwargs")

    def check_class(self, part: str, allowed: tuple[str, ...]) -> None:
        """Raises UserError if the network is of another class."""
        check_part(part)
        if self.kind not in allowed:
            raise UserError(f"{self.kind_at} is {self.kind}; a {' or '.join(allowed)} is needed")

    def weights(self, part: str) -> PickledTensors:
        """The tensors of `ema`."""
        check_part(part)
        return self._tensors

    def tokenizer(self, part: str) -> Any:
        """There is none."""
        raise UserError(f"{self.file}: there is no tokenizer in it")


def check_part(part: str) -> None:
    """Raises ValueError for another part than the one that such bundles have."""
    if part != PART:
        raise ValueError(f"such files have the part {PART}, not {part}")


def _as_student(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What an export of ours would say of it: one step from the noise that such students are published with."""
    side = config.get("img_resolution")
    known = {"resolution": side} if isinstance(side, int) and not isinstance(side, bool) else {}
    return {"config": {"family": "edm", "teacher": name, **known}, "step": 0}


def _ema(file: BinaryIO) -> tuple[Module, bool]:
    """The network in a file that is open, and whether there is nothing else in it."""
    start = file.read(FIRST_BYTES)
    if known := what_it_is(start):
        raise Unexpected(f"not a pickle, but {known}")
    if start.startswith((b"PK", BEGINS)):
        raise Unexpected(f"a file of torch.save, such as training-state-*.pt, which has whole programs; {_SNAPSHOT}")
    size = file.seek(0, os.SEEK_END)
    value, end = interpret(file, _EDM, 0, size)
    if end != size:
        raise Refused(end, f"{size - end} bytes after the end of the pickle")
    if not isinstance(value, dict) or "ema" not in value:
        raise Unexpected(f"no network named ema in it, but {_keys(value)}; {_SNAPSHOT}")
    network = value["ema"]
    if not isinstance(network, Module) or isinstance(network, _Container):
        raise Unexpected(f"its ema is {shown(network)}, and no network")
    return network, len(value) == 1


def _keys(value: Any) -> str:
    if not isinstance(value, dict):
        return shown(value)
    return ", ".join(shown(key) for key in list(value)[:4]) or "nothing"


def kind_of(class_name: Any) -> Any:
    """The preconditioner that a class is, whether of EDM's code or of SiDA's; any other value as it is."""
    return class_name.removesuffix(_TWIN) if isinstance(class_name, str) else class_name


def _kind(network: Module) -> str:
    kind = kind_of(network.class_name)
    if kind not in PRECONDITIONERS:
        raise Unexpected(f"its ema is a {ascii(network.class_name)[1:-1]:.100}; {', '.join(PRECONDITIONERS)} are known")
    return str(kind)


def _config(network: Module) -> dict[str, Any]:
    if network.state.get("_init_args") != ():
        raise Unexpected("its _init_args are not empty; networks are made with arguments that have names")
    given = network.state.get("_init_kwargs")
    if not isinstance(given, dict):
        raise Unexpected(f"its _init_kwargs are {shown(given)}; a dict is needed")
    config: dict[str, Any] = _Plain().of(given)
    return config


class _Plain:
    """Values of a file as JSON has them. It counts, since a file may name the same list a million times."""

    def __init__(self) -> None:
        self._count = 0

    def of(self, value: Any, depth: int = 0) -> Any:
        """Raises `Unexpected` for anything but texts, numbers, and a few of them in lists and dicts."""
        self._count += 1
        if self._count > _MOST_VALUES or depth > _DEEPEST:
            raise Unexpected("its _init_kwargs have more values, or deeper ones, than any network's")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if type(value) in (list, tuple):
            return [self.of(each, depth + 1) for each in value]
        if type(value) is dict:
            return {key: self.of(each, depth + 1) for key, each in value.items()}
        raise Unexpected(f"its _init_kwargs have {shown(value)}")


def _walk(network: Module) -> tuple[dict[str, dict[str, Any]], dict[str, View]]:
    """What the modules below a network record, by their paths, and its tensors in the order of its state dict."""
    recorded: dict[str, dict[str, Any]] = {}
    views: dict[str, View] = {}
    seen: set[int] = set()

    def visit(module: Module, path: str, depth: int) -> None:
        if id(module) in seen or depth > _DEEPEST or len(recorded) > _MOST_TENSORS:
            raise Unexpected(f"{path}: a module that is in two places, or too many of them, or within each other")
        seen.add(id(module))
        recorded[path] = {"class": kind_of(module.class_name), **_attributes(module.state)}
        left_out = _members(module.state, "_non_persistent_buffers_set", (Set, list, tuple))
        for group in ("_parameters", "_buffers"):
            for name, view in _members(module.state, group, (dict,)).items():
                full = _join(path, name)
                if view is None or (group == "_buffers" and name in left_out):
                    continue
                if not isinstance(view, View) or len(views) >= _MOST_TENSORS:
                    raise Unexpected(f"{full} is {shown(view)} and no tensor, or there are more than {_MOST_TENSORS}")
                views[full] = view
        for name, inner in _members(module.state, "_modules", (dict,)).items():
            if inner is not None:
                if not isinstance(inner, Module):
                    raise Unexpected(f"{_join(path, name)} is {shown(inner)}, and no module")
                visit(inner, _join(path, name), depth + 1)

    visit(network, "", 0)
    return recorded, views


def _members(state: dict[str, Any], name: str, kinds: tuple[type, ...]) -> Any:
    found = state.get(name, {} if dict in kinds else ())
    if not isinstance(found, kinds):
        raise Unexpected(f"a module's {name} are {shown(found)}")
    return found


def _attributes(state: dict[str, Any]) -> dict[str, Any]:
    plain = (bool, int, float, str, type(None))
    return {
        name: value for name, value in state.items()
        if isinstance(value, plain) and not name.startswith("_") and name not in _NOT_RECORDED
    }  # fmt: skip


def _join(path: str, name: str) -> str:
    if not name or "." in name or not name.isprintable():
        raise Unexpected(f"{path}: a member named {shown(name)}")
    return f"{path}.{name}" if path else name


def _placed(file: BinaryIO, views: Mapping[str, View]) -> tuple[dict[str, Stored], dict[str, tuple[View, Values]]]:
    """The same tensors, with the places of their values, each of which is in its storage."""
    placed: dict[str, tuple[View, Values]] = {}
    storages: dict[int, tuple[View, Values]] = {}
    total, size = 0, file.seek(0, os.SEEK_END)
    for name, view in views.items():
        payload = view.storage.payload
        first, values = storages.get(payload.offset) or (view, values_of(file, view.storage))
        storages[payload.offset] = first, values
        total += 4 * math.prod(view.size)
        try:
            if first.same_as != view.same_as:
                raise Unexpected("it shares its storage with another tensor, of another shape")
            view.check(values.count)
            if total > size:
                raise Unexpected("with it the tensors have more bytes than the file")
        except Unexpected as error:
            raise Refused(payload.offset, f"{name}: {error}") from error
        placed[name] = view, values
    return {name: Stored(view.size, "float32") for name, view in views.items()}, placed


def _reconstructed(arguments: tuple[Any, ...]) -> Module:
    meta = arguments[0] if len(arguments) == 1 else None
    if not isinstance(meta, dict) or meta.keys() != _META or meta["type"] != "class":
        raise Unexpected("its argument does not describe an object of a class")
    if not isinstance(meta["version"], int) or meta["version"] != _VERSION:
        raise Unexpected(f"version {shown(meta['version'])} of this format; {_VERSION} is needed")
    if not isinstance(meta["class_name"], str) or not isinstance(meta["module_src"], str | LongText):
        raise Unexpected(f"the class is {shown(meta['class_name'])}; a name is needed, and a text of its source")
    if type(meta["state"]) is not dict:
        raise Unexpected(f"the state of a {meta['class_name']:.100} is {shown(meta['state'])}; a dict is needed")
    return Module(meta["class_name"], meta["state"])


def _container(arguments: tuple[Any, ...]) -> _Container:
    empty_dict(arguments)
    return _Container("ModuleDict", {})


def _fill(container: Module, state: Any) -> None:
    if type(state) is not dict or container.state:
        raise Unexpected(f"BUILD of a ModuleDict with {shown(state)}, or a second time")
    container.state.update(state)


def _members_of_set(arguments: tuple[Any, ...]) -> Set:
    if len(arguments) != 1 or type(arguments[0]) is not list:
        raise Unexpected("its argument is not a list")
    return Set(arguments[0])


_EDM = Allowed(
    called={
        "torch_utils.persistence._reconstruct_persistent_obj": _reconstructed,
        "collections.OrderedDict": empty_dict,
        "torch.storage._load_from_bytes": blob_of,
        "builtins.set": _members_of_set,
        **number_rules("f8"),
        **tensor_rules(Blob),
    },
    made={"torch.nn.modules.container.ModuleDict": _container, "dnnlib.util.EasyDict": empty_dict},
    built={_Container: _fill, NumberType: set_order},
)
