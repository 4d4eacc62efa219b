"""Names of several files: exact, as patterns, and in WebDataset's notation with braces."""

import glob
import itertools
import os
import re
from collections.abc import Iterator

from sid_jax.errors import UserError
from sid_jax.runtime.storage.small_files import shown

_MOST = 100_000  # files that braces may name
_MOST_BRACES = 50
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")


def find_shards(pattern: str) -> list[str]:
    """The files that a pattern names, sorted.

    In each part between slashes the first of these holds: a file or folder of exactly this name; the names that
    `{a,b}` or `{000..127}` spells out, each of which must be there; the names that match `*`, `?`, `[...]`; all
    subfolders, for `**`.

    Raises:
      UserError: there is no such file, or one of those in braces is not there; or there are too many.
    """
    if pattern.count("{") > _MOST_BRACES:
        raise UserError(f"real.source {shown(pattern)}: more than {_MOST_BRACES} braces")
    try:
        found = _steps([""], _parts(os.path.expanduser(pattern)), pattern)
    except ValueError as error:  # a NUL, or half a surrogate pair
        raise UserError(f"real.source {shown(pattern)}: no file can have this name ({error})") from error
    if not found:
        raise UserError(f"real.source {shown(pattern)}: there is no such file")
    return sorted(set(found))


def _parts(pattern: str) -> list[str]:
    """The parts between slashes; a slash in braces divides nothing."""
    parts, depth = [""], 0
    for character in pattern:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "/" and depth <= 0:
            parts.append("")
            depth = 0
        else:
            parts[-1] += character
    return parts if depth <= 0 else pattern.split("/")


def _steps(folders: list[str], parts: list[str], pattern: str) -> list[str]:
    """What parts lead to from folders, of which "" is the current one."""
    for number, part in enumerate(parts):
        if part == "" and number < len(parts) - 1:  # at the beginning of an absolute path, or between two slashes
            folders = [folder if folder or number else "/" for folder in folders]
            continue
        folders = list(itertools.chain.from_iterable(_alternatives(folders, part, pattern)))
    return folders


def _alternatives(folders: list[str], part: str, pattern: str) -> Iterator[list[str]]:
    """For each name that the braces of a part spell out, what it leads to."""
    exact = [path for folder in folders if os.path.lexists(path := os.path.join(folder, part))]
    spelled = [] if exact else list(itertools.islice(_spelled(part), _MOST + 1))
    if len(spelled) > _MOST:
        raise UserError(f"real.source {shown(pattern)}: its braces name more than {_MOST} files")
    if exact or spelled == [part]:
        # Not only the exact ones: another folder may have no file of that very name, but one that matches.
        yield list(itertools.chain.from_iterable(_matching(folder, part) for folder in folders))
        return
    for name in spelled:
        found = _steps(folders, name.split("/"), pattern)
        if not found and folders:
            raise UserError(f"real.source {shown(pattern)}: there is no {shown(os.path.join(folders[0], name))}")
        yield found


def _matching(folder: str, part: str) -> list[str]:
    path = os.path.join(folder, part)
    if os.path.lexists(path):
        return [path]
    if not glob.has_magic(part):
        return []
    found = glob.iglob(part, root_dir=folder or None, recursive=True)
    return [*([folder] if part == "**" else []), *(os.path.join(folder, name) for name in found if name)]


def _spelled(text: str) -> Iterator[str]:
    """What the braces of a text spell out, as a shell does: `{a,b}`, `{00..11}`, also within each other."""
    for start, opening in enumerate(text):
        if opening != "{":
            continue
        depth, commas = 0, [start]
        for end in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if text[end] == "," and depth == 1:
                commas.append(end)
            if depth == 0:
                break
        else:
            continue  # it is not closed
        inside = text[start + 1 : end]
        marks = [*commas, end]
        options: Iterator[str]
        if len(commas) > 1:
            options = itertools.chain.from_iterable(
                _spelled(text[left + 1 : right]) for left, right in itertools.pairwise(marks)
            )
        elif numbers := _RANGE.fullmatch(inside):
            options = _range(*numbers.groups())
        else:
            continue  # braces around one word are part of a name
        for option in options:
            for rest in _spelled(text[end + 1 :]):
                yield text[:start] + option + rest
        return
    yield text


def _range(first: str, last: str) -> Iterator[str]:
    """Numbers, as wide as the wider of the two where one begins with a zero."""
    padded = any(len(text) > 1 and text.startswith("0") for text in (first, last))
    width = max(len(first), len(last)) if padded else 0
    step = 1 if int(first) <= int(last) else -1
    return (f"{number:0{width}}" for number in range(int(first), int(last) + step, step))
