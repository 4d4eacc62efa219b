"""Bytes that single HLO instructions read from and write to a chip's main memory."""

from sid_jax.planning.hlo import Array, Instruction, Module

_FREE = (
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all",
    "partition-id", "replica-id", "optimization-barrier", "async-start", "async-update", "async-done", "copy-done",
    "all-gather-done", "all-reduce-done", "collective-permute-done",
)  # fmt: skip
_SLICES = ("dynamic-slice", "slice", "gather")


def traffic(module: Module, computation: str, instruction: Instruction) -> int:
    """Bytes that one execution of an instruction reads from and writes to the main memory.

    Every operand is read once and every result is written once, with two exceptions: if a fusion only slices an
    operand, the slices are read; if a result updates an operand in place, the update is written. A loop, a branch or a
    call has no traffic; the instructions that it runs have.

    Args:
      module: the program.
      computation: the name of the one that has the instruction.
      instruction: any.
    """
    opcode = instruction.opcode
    if opcode in _FREE or (opcode == "custom-call" and not instruction.operands):
        return 0
    operands = [module.operands(computation, instruction, name) for name in instruction.operands]
    if opcode in _SLICES:
        return 2 * _bytes(instruction.outputs)
    if opcode == "dynamic-update-slice":
        return 2 * _bytes(operands[1])
    if opcode != "fusion":
        # The results of a started transfer hold its operands.
        outputs = operands[0] if opcode == "copy-start" else instruction.outputs
        return sum(map(_bytes, operands)) + _bytes(outputs)

    (name,) = instruction.called("calls")
    body = module.computations[name]
    updated = {i.operands[0]: i for i in body.values() if i.opcode == "dynamic-update-slice"}
    total, in_place = 0, 0
    for parameter in (i for i in body.values() if i.opcode == "parameter"):
        place = int(parameter.operands[0])
        if place >= len(operands):
            continue
        users = [i for i in body.values() if parameter.name in i.operands]
        if users and all(user.opcode in _SLICES for user in users):
            total += sum(min(_bytes(user.outputs), _bytes(operands[place])) for user in users)
        elif parameter.name in updated and len(users) == 1:
            update = _bytes(body[updated[parameter.name].operands[1]].outputs)
            total += update
            in_place += _bytes(operands[place])
        else:
            total += _bytes(operands[place])
    return total + max(_bytes(instruction.outputs) - in_place, 0)


def _bytes(arrays: list[Array]) -> int:
    return sum(array.bytes for array in arrays if array.in_main_memory)
