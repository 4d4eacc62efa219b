"""A run's curves and pictures on Weights & Biases, where the config names a project."""

import secrets
from collections.abc import Mapping

from etils import epath
from ml_collections import ConfigDict
from PIL import Image

from sid_jax.errors import UserError
from sid_jax.runtime.storage.files import is_remote, write_whole


class WandbRun:
    """A writer of scalars and pictures. A run that goes on goes on there too: its id is in `wandb_id` of the workdir.

    Args:
        workdir: the run's folder.
        config: the resolved config; `wandb.project`, `wandb.entity` and `wandb.name` are read.

    Raises:
        UserError: wandb is not installed, or does not start.
    """

    def __init__(self, workdir: epath.Path, config: ConfigDict):
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
        self._image = wandb.Image
        try:
            self._run = wandb.init(
                project=config.wandb.project,
                entity=config.wandb.entity or None,
                name=config.wandb.name or workdir.name,
                id=file.read_text().strip(),
                resume="allow",
                config=config.to_dict(),
                dir=None if is_remote(workdir) else str(workdir),
            )
        except Exception as error:  # of many types, and none of them a defect of ours
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"Weights & Biases does not start: {reason}; empty wandb.project does without") from error

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds a point to the curve of each name."""
        self._run.log(dict(values), step=step)

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """Adds a picture."""
        self._run.log({name: self._image(image)}, step=step)

    def flush(self) -> None:
        """Nothing: wandb uploads on its own, and its copy is none that a run goes on from."""

    def close(self) -> None:
        """Returns when all is uploaded."""
        self._run.finish()
