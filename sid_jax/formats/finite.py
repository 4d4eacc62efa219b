"""Whether all numbers of an array are finite, for arrays of gigabytes."""

import numpy as np

# Of what is not finite, and of nothing else, all bits of the exponent are set.
_EXPONENTS = {"float32": ("uint32", 0x7F800000), "float16": ("uint16", 0x7C00), "bfloat16": ("uint16", 0x7F80)}
_CHUNK = 1 << 16  # values that are looked at together, so that they stay in the processor's cache


def is_finite(array: np.ndarray) -> bool:
    """Whether an array of any shape, in one of the types that networks have, has no NaN and nothing infinite.

    It is read once, several gigabytes a second, and no second array of its size is made.
    """
    bits, exponent = _EXPONENTS[str(array.dtype)]
    values: np.ndarray = array.ravel(order="K").view(bits)
    mask = np.array(exponent, bits)
    chunks = (values[start : start + _CHUNK] for start in range(0, values.size, _CHUNK))
    return all((chunk & mask).max() != mask for chunk in chunks)
