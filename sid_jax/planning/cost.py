"""What one run of a compiled program costs on one chip, added up over its HLO, every loop as often as it runs."""

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass, field

from sid_jax.planning.arithmetic import flops
from sid_jax.planning.hlo import Array, Instruction, Module
from sid_jax.planning.targets import CPU, TPUS, Chip
from sid_jax.planning.traffic import traffic

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
KERNEL_SHARE = 0.5
"""The share of a chip's peak that attention kernels are assumed to reach; on a TPU, heads are filled up to `LANES`."""
LANES = 128
_HIGHEST = r'(?i)operand_precision"?[:=][\[{]"?(highest)'
"""In the attributes of a product, and in the configuration of a library's call."""
_KERNELS = ("tpu_custom_call", "__cudnn$fmha")


@dataclass
class Cost:
    """What a computation costs, or the whole program.

    Attributes:
      flops: of matrix products and convolutions, as `arithmetic` counts them, without kernels.
      kernel_flops: of attention in Pallas or cuDNN kernels, which the compiler's own estimate leaves out.
      kernel_seconds: of these kernels, at `KERNEL_SHARE` of the chip's peak.
      bytes: read from and written to the main memory.
      busy_seconds: of the arithmetic without kernels, at the chip's peak in the precision of each instruction.
      seconds: of everything but kernels. Each instruction takes the time of its arithmetic, or of its traffic at the
        bandwidth of the main memory, whichever is longer (the roofline); nothing overlaps.
      launches: of kernels, where the chip is a GPU: instructions that read or write the main memory.
      launch_seconds: of all launches of the whole program, beside `seconds`; `cost_of` sets it.
      collectives: bytes that one chip gets or gives, by kind of transfer; the larger side of each.
      dynamic_loops: loops whose number of turns only the running program knows; each is counted as one turn.
    """

    flops: float = 0
    kernel_flops: float = 0
    kernel_seconds: float = 0
    bytes: float = 0
    busy_seconds: float = 0
    seconds: float = 0
    launches: int = 0
    launch_seconds: float = 0
    collectives: Counter[str] = field(default_factory=Counter)
    dynamic_loops: int = 0

    def add(self, other: "Cost", times: int = 1) -> None:
        """Adds `times` runs of another computation."""
        self.flops += times * other.flops
        self.kernel_flops += times * other.kernel_flops
        self.kernel_seconds += times * other.kernel_seconds
        self.bytes += times * other.bytes
        self.busy_seconds += times * other.busy_seconds
        self.seconds += times * other.seconds
        self.launches += times * other.launches
        self.dynamic_loops += other.dynamic_loops
        for kind, size in other.collectives.items():
            self.collectives[kind] += times * size


def cost_of(module: Module, chip: Chip = CPU, *, unrolled: bool = True) -> Cost:
    """The cost of one run of a program on one chip.

    Args:
      module: the program.
      chip: its peak and bandwidth.
      unrolled: whether the body of a loop counts as often as it runs, or once.
    """
    total = _Walk(module, chip, unrolled).computation(module.entry)
    return dataclasses.replace(total, launch_seconds=total.launches * chip.launch)


class _Walk:
    """Adds up computations, each of them once."""

    def __init__(self, module: Module, chip: Chip, unrolled: bool) -> None:
        self._module, self._chip, self._unrolled = module, chip, unrolled
        self._known: dict[str, Cost] = {}

    def computation(self, name: str) -> Cost:
        if name not in self._known:
            total = Cost()
            for instruction in self._module.computations[name].values():
                self._instruction(name, instruction, total)
            self._known[name] = total
        return self._known[name]

    def _instruction(self, computation: str, instruction: Instruction, total: Cost) -> None:
        opcode = instruction.opcode
        if opcode == "while":
            trips = self._module.trips(instruction)
            total.dynamic_loops += trips is None
            for name in instruction.called("body"):
                total.add(self.computation(name), trips if trips is not None and self._unrolled else 1)
        elif opcode in ("call", "async-start"):
            for name in instruction.called("to_apply", "calls"):
                total.add(self.computation(name))
        elif opcode == "conditional":
            branches = instruction.called("branch_computations", "true_computation", "false_computation")
            total.add(max(map(self.computation, branches), key=lambda cost: cost.flops))

        operands = self._module.operands(computation, instruction)
        moved = traffic(self._module, computation, instruction)
        own = Cost(bytes=moved, launches=int(moved > 0))
        if opcode == "fusion":
            # Its instructions share one pass over the main memory.
            for name in instruction.called("calls"):
                own.add(dataclasses.replace(self.computation(name), bytes=0, seconds=0, launches=0))
        elif opcode in ("dot", "convolution", "custom-call"):
            own.flops = flops(instruction, operands)
            own.busy_seconds = own.flops / self._peak(instruction, operands)
            own.kernel_flops = attention_flops(instruction, operands)
            own.kernel_seconds = self._kernel_seconds(own.kernel_flops, instruction, operands)
        if not own.kernel_flops:
            own.seconds = max(own.busy_seconds, own.bytes / self._chip.bandwidth)
        total.add(own)
        kind = opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            # The results of a started transfer include its operands.
            sides = [_bytes(operands), _bytes(instruction.outputs)] if kind == opcode else [_bytes(operands)]
            if kind == "all-gather" and kind != opcode:
                sides.append(_bytes(instruction.outputs) - _bytes(operands))
            total.collectives[kind] += max(sides)

    def _peak(self, instruction: Instruction, operands: list[Array]) -> float:
        """Operations a second of a product, by its precision; float32 without "highest" goes the way of bfloat16."""
        exact = operands[:1] and operands[0].dtype == "f32" and instruction.attribute(_HIGHEST)
        return self._chip.float32 if exact else self._chip.flops

    def _kernel_seconds(self, operations: float, instruction: Instruction, operands: list[Array]) -> float:
        shape = _attention_shape(instruction, operands)
        if not operations or shape is None:
            return 0
        head = shape[3]
        filled = -(-head // LANES) * LANES if self._chip in TPUS.values() else head
        return operations * filled / head / (KERNEL_SHARE * self._chip.flops)


def _bytes(of: list[Array]) -> int:
    return sum(array.bytes for array in of)


def attention_flops(instruction: Instruction, operands: list[Array]) -> int:
    """Operations of an attention kernel: 4 B heads Lq Lk D, and 2.5 times that in the backward pass.

    The forward pass has two products, each of a multiplication and an addition, hence the 4; the backward pass has five
    products. Where the backward pass is in two kernels, the one for keys and values counts 1.5 times the forward pass,
    the one for queries once. What a kernel computes again is left out, and so is all padding within it.

    Args:
      instruction: any; one that is no attention kernel has 0.
      operands: its arguments.
    """
    shape = _attention_shape(instruction, operands)
    if shape is None:
        return 0
    product = 4 * math.prod(shape)
    if "dkv" in instruction.attribute(r'op_name="([^"]*)"'):
        fused = sum(len(array.dims) >= 3 for array in instruction.outputs) == 3
        return product * (5 if fused else 3) // 2
    backward = instruction.attribute(r'custom_call_target="([^"]*)"').endswith("Backward")
    return product * 5 // 2 if backward else product


def _attention_shape(instruction: Instruction, operands: list[Array]) -> tuple[int, int, int, int] | None:
    """(B x heads, Lq, Lk, D) of an attention kernel; None for another instruction."""
    target = instruction.attribute(r'custom_call_target="([^"]*)"')
    tensors = [array.dims for array in operands if len(array.dims) >= 3 and array.dtype in ("bf16", "f16", "f32")]
    if not target.startswith(_KERNELS) or len(tensors) < 3:
        return None
    query, key = tensors[:2]
    if target.startswith("__cudnn"):  # [B, L, heads, D]
        return query[0] * query[2], query[1], key[1], query[3]
    return query[0], query[2], key[2], query[1]  # [B x heads, D, L], as models/attention/kernels.py has it
