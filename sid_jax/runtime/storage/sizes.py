"""Numbers of bytes, as they are said."""


def sizes(*counts: int) -> tuple[str, ...]:
    """Numbers of bytes in one unit, the largest in which the largest of them is at least 1.

    Numbers that differ are shown so that they do: `2.5 MB` and `0.1 MB`, `1.00 GB` and `1.01 GB`.
    """
    largest = max(counts)
    for name, unit in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        for digits in range(1, 4):
            shown = tuple(f"{count / unit:.{digits}f} {name}" for count in counts)
            if largest >= unit and len(set(shown)) == len(set(counts)):
                return shown
    return tuple(f"{count} bytes" for count in counts)
