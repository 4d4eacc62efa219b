"""How this process was called: `sid-jax COMMAND`, which an installed package has, or `python -m sid_jax.COMMAND`."""

import re
import sys
from pathlib import Path

SCRIPT = "sid-jax"
"""The name of the console script, as pyproject.toml has it."""

# Not `sid_jax.digits.pairs`, which the script does not have.
_MODULE = re.compile(r"python -m sid_jax(?:\.(\w+)\b)?(?!\.?\w)")


def as_called(text: str) -> str:
    """A text whose command lines begin with `python -m sid_jax`, in the form in which this process was called.

    So usage lines and examples can be typed as they are read.
    """
    if Path(sys.argv[0]).name != SCRIPT:
        return text
    return _MODULE.sub(lambda match: f"{SCRIPT} {match[1]}" if match[1] else SCRIPT, text)
