"""Reads the text of an HLO module: computations, their instructions, and how often each computation runs."""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+)( \(.*)? \{$")
_START = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = ")
_BITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Array:
    """The type of an array, and where it is.

    Attributes:
      dtype: as HLO writes it, such as "bf16".
      dims: its shape.
      in_main_memory: whether it is in the chip's main memory.
    """

    dtype: str
    dims: tuple[int, ...]
    in_main_memory: bool = True

    @property
    def size(self) -> int:
        """Elements."""
        size = 1
        for dim in self.dims:
            size *= dim
        return size

    @property
    def bytes(self) -> int:
        """Size in bytes, without padding."""
        bits = _BITS.search(self.dtype)
        return self.size if bits is None else self.size * int(bits.group()) // 8


def arrays(shape: str) -> list[Array]:
    """The arrays of a shape's text, such as "bf16[2,3]{1,0}"; several if the shape is a tuple."""
    return [
        # TPU layouts name other memories than the main one, such as the vector memory S(1).
        Array(dtype, tuple(int(dim) for dim in dims.split(",") if dim), "S(" not in layout)
        for dtype, dims, layout in _ARRAY.findall(shape)
    ]


@dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: what others call its result.
      shape: the text of its type.
      opcode: such as "fusion".
      operands: the names of its arguments.
      attributes: the rest of the line, as it is.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    @functools.cached_property
    def outputs(self) -> list[Array]:
        """The arrays that it makes."""
        return arrays(self.shape)

    def attribute(self, pattern: str) -> str:
        """The first group of a regular expression in the attributes, or the empty text."""
        found = re.search(pattern, self.attributes)
        return found.group(1) if found else ""

    def called(self, *keys: str) -> list[str]:
        """The computations that the attributes `key=%name` or `key={%name, ...}` name."""
        names: list[str] = []
        for key in keys:
            text = self.attribute(rf"\b{key}=(\{{[^}}]*\}}|%?[\w.\-]+)")
            names += re.findall(r"[\w.\-]+", text)
        return names


@dataclass
class Module:
    """A program.

    Attributes:
      computations: by their names, the instructions of each by theirs.
      entry: the name of the computation that is run.
    """

    computations: dict[str, dict[str, Instruction]] = field(default_factory=dict)
    entry: str = ""

    def operands(self, computation: str, instruction: Instruction, *names: str) -> list[Array]:
        """The types of an instruction's arguments; a tuple has several, one after the other.

        Args:
          computation: which has the instruction.
          instruction: whose arguments.
          *names: of the arguments; none: all of them.
        """
        known = self.computations[computation]
        return [array for name in names or instruction.operands if name in known for array in known[name].outputs]

    def trips(self, loop: Instruction) -> int | None:
        """How often a `while` runs its body; None if only the running program knows."""
        known = loop.attribute(r'"known_trip_count":\{"n":"(\d+)"')
        if known:
            return int(known)
        bounds = {
            int(i.operands[0])
            for name in self._with_fusions(loop.called("condition"))
            for i in self.computations[name].values()
            if i.opcode == "constant" and i.operands and i.operands[0].isdecimal()
        }
        # A loop of JAX counts from 0 in steps of 1. The only number in its condition is the one at which it ends.
        return bounds.pop() if len(bounds) == 1 else None

    def _with_fusions(self, names: list[str]) -> Iterator[str]:
        for name in names:
            yield name
            for instruction in self.computations[name].values():
                if instruction.opcode == "fusion":
                    yield from self._with_fusions(instruction.called("calls"))


def parse(text: str) -> Module:
    """The module of `compiled.as_text()`, or of `lowered.as_text("hlo")`."""
    module = Module()
    current: dict[str, Instruction] | None = None  # the computation that the line is in
    lines: list[str] = []  # those of its instructions
    for line in text.splitlines():
        if current is None:
            header = _HEADER.match(line)
            if header:
                current, lines = module.computations.setdefault(header.group(2), {}), []
                module.entry = header.group(2) if header.group(1) else module.entry
        elif line == "}":
            current.update((i.name, i) for i in map(_instruction, lines))
            current = None
        elif _START.match(line):
            lines.append(line)
        else:
            # The description of a kernel goes over several lines.
            lines[-1] += " " + line
    return module


def _instruction(line: str) -> Instruction:
    name, _, rest = line.strip().removeprefix("ROOT ").partition(" = ")
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    arguments = rest[len(opcode) :]
    end = _closing(arguments)
    inner = arguments[1 : end - 1]
    operands = tuple(re.findall(r"%([\w.\-]+)", inner)) or tuple(
        part.split()[-1] for part in inner.split(",") if part.strip()
    )
    return Instruction(name.removeprefix("%"), shape, opcode, operands, arguments[end:])


def _closing(text: str) -> int:
    """The place after the bracket that closes the one at the start of `text`."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return place + 1
    return len(text)
