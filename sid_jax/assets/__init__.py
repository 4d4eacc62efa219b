"""What comes with the package: the digits teacher, its metric network and its prompts; and the config files."""

from pathlib import Path

from sid_jax.errors import UserError

PREFIX = "bundled:"
_FOLDER = Path(__file__).parent


def resolve(name: str) -> str:
    """The path of "bundled:NAME", a file or folder that comes with the package; any other text as it is.

    A config says "bundled:digits" and not a path, so that it is the same wherever the package is installed.

    Raises:
      UserError: nothing of that name comes with the package.
    """
    if not name.startswith(PREFIX):
        return name
    path = (_FOLDER / name.removeprefix(PREFIX)).resolve()
    if not path.is_relative_to(_FOLDER) or not path.exists():
        known = ", ".join(PREFIX + p.name for p in sorted(_FOLDER.iterdir()) if not p.name.startswith("_"))
        raise UserError(f"{name} does not come with the package; there are {known}")
    return str(path)


def configs() -> Path:
    """The folder of the config files: in the package where a wheel was installed, and beside it in a checkout."""
    installed = _FOLDER.parent / "configs"
    return installed if installed.is_dir() else _FOLDER.parents[1] / "configs"
