"""A run's curves and pictures on Weights & Biases, where the config names a project."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etils import epath
from PIL import Image

from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import is_remote, write_whole
from sid_jax.runtime.storage.small_files import read_small_text


@dataclass(frozen=True)
class WandbProject:
    """Where a run is shown there: the group `wandb` of the config.

    Attributes:
      project: empty: nowhere.
      entity: a user or a team; empty: the user who is logged in.
      name: of the run; empty: the name of its workdir.
    """

    project: str = ""
    entity: str = ""
    name: str = ""


class WandbRun:
    """The `Board` there. The id of its run is in `wandb_id` of the workdir: a run that goes on here goes on there too.

    Args:
      workdir: the run's folder.
      project: where the run is shown.
      settings: the resolved config as nested dicts, which is shown with the run.

    Raises:
      UserError: wandb is not installed, or does not start; or the file with the id has something else.
    """

    def __init__(self, workdir: epath.Path, project: WandbProject, settings: Mapping[str, Any]) -> None:
        try:
            # Imported here: it is needed only where the config asks for it.
            import wandb
        except ImportError as error:
            raise UserError(
                "config key wandb.project is set, and wandb is not installed: pip install wandb, or leave it empty"
            ) from error
        file = workdir / "wandb_id"
        if not file.exists():
            write_whole(file, secrets.token_hex(4))
        run = read_small_text(file, most=1000).strip()
        if not re.fullmatch(r"[\w-]{1,64}", run, re.ASCII):
            raise UserError(f"{file} has no id of a run on Weights & Biases: delete it, and a new one is drawn")
        self._image = wandb.Image
        try:
            self._run = wandb.init(
                project=project.project,
                entity=project.entity or None,
                name=project.name or workdir.name,
                id=run,
                resume="allow",
                config=dict(settings),
                dir=None if is_remote(workdir) else str(workdir),
            )
        except Exception as error:  # wandb's errors have many types, and none of them is a defect of ours
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"Weights & Biases does not start: {reason}; empty wandb.project does without") from error

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds a point to the curve of each name."""
        self._run.log(dict(values), step=step)

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """Adds a picture."""
        self._run.log({name: self._image(image)}, step=step)

    def flush(self) -> None:
        """Does nothing: wandb uploads on its own, and no run goes on from what it has."""

    def close(self) -> None:
        """Returns when all is uploaded."""
        self._run.finish()
