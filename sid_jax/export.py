"""Writes a distilled student in the form of its teacher, such as a diffusers folder, which PyTorch opens."""

if __name__ == "__main__":  # before the imports: they take seconds, and may fail
    from sid_jax.runtime.cli.start import start

    start("sid_jax.export")

import sys
import types
from collections.abc import Sequence
from typing import Any

from sid_jax.errors import UserError
from sid_jax.experiment.opened import export
from sid_jax.formats.hub_push import check_push, push
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.storage.files import on_disk

EPILOG = """\
The folder has the student's UNet (the moving average, float32), the teacher's other networks and tokenizers, and a
scheduler under which PyTorch's diffusers makes the pictures of sid_jax.sample; its README.md shows how to use it. It
names no folder of this machine: of the teacher's, the prompts' and the metric's paths it has the last name alone.

The folder appears in one step, when it is complete. An earlier export in its place is replaced if nothing in it was
changed or added. With --overwrite it is replaced anyway, as is a pipeline that export did not write: their model and
README.md are replaced, and files that belong to no model (notes, pictures, .git) stay. A folder that has no model in
it, and the current directory, are never replaced.

--push uploads what was written to a repository of the hub, which is made if it is not there; the card at its top says
licence and teacher. It needs a token that may write: `hf auth login`, or HF_TOKEN. Of the folder nothing else is
uploaded than what export wrote.

examples:
  python -m sid_jax.export --run runs/digits_1step --out exported
  python -m sid_jax.export --run runs/digits_1step --step 800 --out exported_800
  python -m sid_jax.export --run runs/sd15_1step --out exported --push ORGANISATION/NAME --private"""


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m sid_jax.export", __doc__, EPILOG)
    parser.add_argument("--run", metavar="DIR", required=True, help="the folder of a run: its newest checkpoint")
    command_line.add_step(parser)
    parser.add_argument("--out", metavar="FOLDER", required=True, help="the folder to write")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a model that was changed, or that export did not write"
    )
    parser.add_argument("--push", metavar="ORG/NAME", help="upload it to this repository of the hub, too")
    parser.add_argument("--private", action="store_true", help="with --push: make the repository for its owners alone")
    arguments = parser.parse_args(argv)
    if arguments.private and arguments.push is None:
        raise UserError("--private is of the repository that --push names")
    if arguments.push is not None:
        check_push(arguments.push)
    out = on_disk(arguments.out, "--out")
    export(arguments.run, out, step=arguments.step, overwrite=arguments.overwrite)
    print(f"wrote {arguments.out}; its README.md shows how to open it in PyTorch")
    if arguments.push is not None:
        print(f"pushed it to {push(out, arguments.push, private=arguments.private)}")


class _Callable(types.ModuleType):
    """The module that can be called as well: `sid_jax.export` is this command, and the function of that name."""

    def __call__(self, *arguments: Any, **keywords: Any) -> None:
        export(*arguments, **keywords)


sys.modules[__name__].__class__ = _Callable
