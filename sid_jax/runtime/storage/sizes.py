"""Numbers of bytes, as they are said."""

_UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def sizes(*counts: int) -> tuple[str, ...]:
    """Numbers of bytes in one unit, the largest in which the largest of them is at least 1.

    Numbers that differ are shown so that they do: `2.5 MB` and `0.1 MB`, `1.00 GB` and `1.01 GB`.
    """
    largest = max(counts)
    name, unit = next(((name, unit) for name, unit in _UNITS if largest >= unit), ("bytes", 1.0))
    for digits in (1, 2, 3) if unit > 1 else ():
        shown = tuple(f"{count / unit:.{digits}f} {name}" for count in counts)
        if len(set(shown)) == len(set(counts)):
            return shown
    return tuple(f"{count} bytes" for count in counts)
