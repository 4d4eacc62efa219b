"""Pickles read without unpickling: an interpreter of the opcodes that files of weights have, and of no other.

`pickle` runs what a file says: it imports, calls, and sets attributes. Here a global is a pair of strings, and what a
file asks to call is looked up in a table of ours, which says what such a call may be given and what stands for its
result. Anything else in a file is an error that names the place. Large bytes and long texts are never read: they are
places in the file (`Payload`, `LongText`), which whoever needs one reads when its turn comes.

The scanner is ours, since `pickletools.genops` reads all bytes that an opcode carries; the names of the opcodes are
from its table.
"""

import os
import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

MOST_OPCODES = 10**6  # the largest published teacher has 10^5
LONGEST_TEXT = 1000  # bytes that are read of a text; sources of modules are longer, and nobody reads them
_START = 16  # bytes of a payload that are kept
_LONGEST_NAME = 300  # bytes of a line that names a module or a function

_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_FIXED = {
    "BININT": "<i", "BININT1": "<B", "BININT2": "<H", "BINFLOAT": ">d", "PROTO": "<B", "FRAME": "<Q",
    "BINGET": "<B", "LONG_BINGET": "<I", "BINPUT": "<B", "LONG_BINPUT": "<I",
}  # fmt: skip
"""Opcodes that a number follows, and its form."""

_TEXTS = {"SHORT_BINUNICODE": "<B", "BINUNICODE": "<I", "BINUNICODE8": "<Q"}
_BYTES = {"SHORT_BINBYTES": "<B", "BINBYTES": "<I", "BINBYTES8": "<Q"}
_STRINGS = {"SHORT_BINSTRING": "<B", "BINSTRING": "<I"}
"""Opcodes that a length follows and then so many bytes, and the form of the length."""


class Refused(Exception):
    """A file has something that files of its kind have not; `offset` is the byte at which it is.

    Functions of an `Allowed` raise `Unexpected`, and the interpreter adds where that was.
    """

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"byte {offset}: {reason}")
        self.offset, self.reason = offset, reason


class Unexpected(Exception):
    """What a function of an `Allowed` raises: the values that it was given are not those of such a file."""


class Global(NamedTuple):
    """The name of a class or a function, and nothing more."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Payload(NamedTuple):
    """Bytes in the file, of which only the first 16 are here."""

    offset: int
    length: int
    start: bytes


class LongText(NamedTuple):
    """A text in the file that is too long to be read."""

    offset: int
    length: int


class Set(list[Any]):
    """What a file says is a set: its members, in order, which need not be hashable."""


Rule = Callable[[tuple[Any, ...]], Any]


@dataclass(frozen=True)
class Allowed:
    """What files of one kind may have.

    Names are those of `Global`, as "module.name". Every function raises `Unexpected` for what it does not know.

    Attributes:
      called: of REDUCE: the arguments to what stands for the result.
      made: of NEWOBJ: the same.
      named: globals that are never called, but stand somewhere.
      built: of BUILD: by the type of what is built, a function of it and of the state that it is given.
      persistent: of BINPERSID: the id to what stands for it; None where there are no such ids.
      protocols: of pickle.
      strings: whether there may be strings of Python 2: texts where they are short, and bytes where they are long.
      bytearrays: whether there may be bytes that can be changed, as arrays of NumPy have in protocol 5.
    """

    called: Mapping[str, Rule] = field(default_factory=dict)
    made: Mapping[str, Rule] = field(default_factory=dict)
    named: frozenset[str] = frozenset()
    built: Mapping[type, Callable[[Any, Any], None]] = field(default_factory=dict)
    persistent: Callable[[Any], Any] | None = None
    protocols: tuple[int, ...] = (3, 4, 5)
    strings: bool = False
    bytearrays: bool = False


def interpret(
    file: BinaryIO, allowed: Allowed, start: int = 0, end: int | None = None, most: int = MOST_OPCODES
) -> tuple[Any, int]:
    """What a pickle in a file stands for: numbers, texts, tuples, lists, dicts, and what `allowed` makes of the rest.

    Containers may hold themselves: whoever walks the result sees to it that the walk ends.

    Args:
      file: open for reading, and seekable.
      allowed: what it may have.
      start: where the pickle begins.
      end: where it must have ended; None: with the file.
      most: opcodes that it may have.

    Returns:
      The value, and where the pickle ends: behind its STOP.

    Raises:
      Refused: it has something else, or is cut off.
    """
    if end is None:
        end = file.seek(0, os.SEEK_END)
    file.seek(start)
    return _Interpreter(file, allowed, start, end).run(most)


def shown(value: Any) -> str:
    """A value from a file as it may stand in a message: short, in one line, and without a look into containers."""
    if isinstance(value, Global):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return ascii(value) if isinstance(value, str) and len(value) <= 200 else f"{value!r:.80}"
    return {"Payload": "bytes", "LongText": "a long text"}.get(
        type(value).__name__, f"a {type(value).__name__.lower()}"
    )


class _Interpreter:
    """The machine of pickles: a stack, a memo, and a function for each opcode that is known."""

    def __init__(self, file: BinaryIO, allowed: Allowed, start: int, end: int) -> None:
        self._file, self._allowed, self._at, self._end = file, allowed, start, end
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # what is under each mark
        self._memo: dict[int, Any] = {}

    def run(self, most: int) -> tuple[Any, int]:
        began = self._at
        for _ in range(most):
            opcode = self._at
            code = self._read(1)[0]
            name = _NAMES.get(code)
            if (name == "PROTO") != (opcode == began):
                raise Refused(opcode, "PROTO within a pickle" if name == "PROTO" else "no pickle begins there")
            try:
                if name == "STOP":
                    return self._last(), self._at
                self._step(name, code)
            except Unexpected as error:
                raise Refused(opcode, str(error)) from error
        raise Refused(self._at, f"more than {most} opcodes")

    def _step(self, name: str | None, code: int) -> None:
        stack = self._stack
        if name in _FIXED:
            self._number(name, self._unpack(_FIXED[name]))
        elif name in _TEXTS:
            stack.append(self._text(self._unpack(_TEXTS[name])))
        elif name in _BYTES:
            stack.append(self._payload(self._unpack(_BYTES[name])))
        elif name == "BYTEARRAY8" and self._allowed.bytearrays:
            stack.append(self._payload(self._unpack("<Q")))
        elif name in _STRINGS and self._allowed.strings:
            length = self._unpack(_STRINGS[name])
            stack.append(self._payload(length) if length > LONGEST_TEXT else self._read(length).decode("latin-1"))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _STEPS:
            _STEPS[name](self)
        else:
            raise Unexpected(f"opcode {name or f'{code:#04x}'}, which files of weights have not")

    def _number(self, name: str, value: Any) -> None:
        if name in ("BINPUT", "LONG_BINPUT"):
            self._memo[value] = self._top()
        elif name in ("BINGET", "LONG_BINGET"):
            if value not in self._memo:
                raise Unexpected(f"{name} of {value}, which is not there")
            self._stack.append(self._memo[value])
        elif name == "PROTO":
            if value not in self._allowed.protocols:
                known = " or ".join(map(str, self._allowed.protocols))
                raise Unexpected(f"protocol {value} of pickle; {known} is needed")
        elif name != "FRAME":
            self._stack.append(value)

    def _top(self) -> Any:
        if not self._stack:
            raise Unexpected("it takes more values than there are")
        return self._stack[-1]

    def _pop(self, count: int) -> list[Any]:
        """The last values, in the order in which they came."""
        if len(self._stack) < count:
            raise Unexpected("it takes more values than there are")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._top()

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        if not self._below:
            raise Unexpected("it takes all since a mark, and there is none")
        found, self._stack = self._stack, self._below.pop()
        return found

    def _last(self) -> Any:
        if len(self._stack) != 1 or self._below:
            raise Unexpected("STOP, with more or less than one value")
        return self._stack[0]

    def _long(self) -> None:
        self._stack.append(int.from_bytes(self._read(self._unpack("<B")), "little", signed=True))

    def _tuple(self, count: int) -> None:
        self._stack.append(tuple(self._pop(count)))

    def _tuple_since_mark(self) -> None:
        items = self._since_mark()
        self._stack.append(tuple(items))

    def _append(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise Unexpected(f"items for {shown(target)}, which is no list")
        target.extend(items)

    def _add(self) -> None:
        items = self._since_mark()
        target = self._top()
        if type(target) is not Set:
            raise Unexpected(f"items for {shown(target)}, which is no set")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, dict) or len(items) % 2:
            raise Unexpected(f"items for {shown(target)}, which is no dict, or keys without values")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise Unexpected(f"{shown(key)} is a key; texts are needed")
            target[key] = value

    def _line_global(self) -> None:
        self._global(self._line(), self._line())

    def _stack_global(self) -> None:
        module, name = self._pop(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise Unexpected(f"a global named {shown(module)}, {shown(name)}; texts are needed")
        self._global(module, name)

    def _global(self, module: str, name: str) -> None:
        allowed = self._allowed
        full = f"{module}.{name}"
        if not any(full in known for known in (allowed.called, allowed.made, allowed.named)):
            raise Unexpected(
                f"the global {ascii(module)[1:-1]:.100} {ascii(name)[1:-1]:.100}, which such files do not use"
            )
        self._stack.append(Global(module, name))

    def _apply(self, rules: Mapping[str, Rule], opcode: str) -> None:
        what, arguments = self._pop(2)
        rule = rules.get(str(what)) if isinstance(what, Global) else None
        if rule is None:
            raise Unexpected(f"{opcode} of {shown(what)}")
        if not isinstance(arguments, tuple):
            raise Unexpected(f"{opcode} of {shown(what)} with {shown(arguments)} in place of arguments")
        try:
            self._stack.append(rule(arguments))
        except Unexpected as error:
            raise Unexpected(f"{what}: {error}") from error

    def _build(self) -> None:
        (state,) = self._pop(1)
        target = self._top()
        build = self._allowed.built.get(type(target))
        if build is None:
            raise Unexpected(f"BUILD of {shown(target)}")
        build(target, state)

    def _persistent(self) -> None:
        if self._allowed.persistent is None:
            raise Unexpected("BINPERSID outside of a storage")
        self._stack.append(self._allowed.persistent(*self._pop(1)))

    def _text(self, length: int) -> str | LongText:
        if length > LONGEST_TEXT:
            return LongText(self._skip(length), length)
        try:
            return self._read(length).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise Unexpected("a text that is not UTF-8") from None

    def _payload(self, length: int) -> Payload:
        offset = self._at
        start = self._read(min(length, _START))
        self._skip(length - len(start))
        return Payload(offset, length, start)

    def _line(self) -> str:
        line = self._file.readline(_LONGEST_NAME + 1)
        if not line.endswith(b"\n") or self._at + len(line) > self._end:
            raise Unexpected("a name that does not end")
        self._at += len(line)
        try:
            return line[:-1].decode("utf-8")
        except UnicodeDecodeError:
            raise Unexpected("a name that is not UTF-8") from None

    def _unpack(self, form: str) -> Any:
        return struct.unpack(form, self._read(struct.calcsize(form)))[0]

    def _check_left(self, length: int) -> None:
        if length > self._end - self._at:
            raise Refused(
                self._at, f"{length} bytes are to follow, and {max(0, self._end - self._at)} are there: cut off"
            )

    def _read(self, length: int) -> bytes:
        self._check_left(length)
        data = self._file.read(length)
        if len(data) < length:
            raise Refused(self._at, "the file has become shorter while it was read")
        self._at += length
        return data

    def _skip(self, length: int) -> int:
        """Where the skipped bytes begin."""
        self._check_left(length)
        offset = self._at
        self._at = self._file.seek(offset + length)
        return offset


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": Set,
}
_STEPS: dict[str, Callable[[_Interpreter], None]] = {
    "MARK": _Interpreter._mark,
    "MEMOIZE": _Interpreter._memoize,
    "LONG1": _Interpreter._long,
    "TUPLE": _Interpreter._tuple_since_mark,
    "TUPLE1": lambda machine: machine._tuple(1),
    "TUPLE2": lambda machine: machine._tuple(2),
    "TUPLE3": lambda machine: machine._tuple(3),
    "APPEND": lambda machine: machine._append(machine._pop(1)),
    "APPENDS": lambda machine: machine._append(machine._since_mark()),
    "ADDITEMS": _Interpreter._add,
    "SETITEM": lambda machine: machine._set(machine._pop(2)),
    "SETITEMS": lambda machine: machine._set(machine._since_mark()),
    "GLOBAL": _Interpreter._line_global,
    "STACK_GLOBAL": _Interpreter._stack_global,
    "REDUCE": lambda machine: machine._apply(machine._allowed.called, "REDUCE"),
    "NEWOBJ": lambda machine: machine._apply(machine._allowed.made, "NEWOBJ"),
    "BUILD": _Interpreter._build,
    "BINPERSID": _Interpreter._persistent,
}
