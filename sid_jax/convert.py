"""Converts a pickle of EDM, SiD or SiDA to a folder of safetensors, once; nothing in the pickle is executed."""

if __name__ == "__main__":  # before the imports: they take seconds, and may fail
    from sid_jax.runtime.cli.start import start

    start("sid_jax.convert")

from collections.abc import Sequence

from sid_jax.families import edm
from sid_jax.families.open import open_source
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.storage.files import on_disk

EPILOG = """\
IN is a file network-snapshot-*.pkl or edm-*.pkl, or one of the hub: ORGANISATION/NAME/PATH/TO/FILE.pkl. Of its network
`ema` all tensors are taken as they are, and what it was made with. The folder has model.safetensors, config.json and a
README.md; whatever takes the pickle (a config's teacher, sample --model) takes the folder as well.

NVIDIA's files, and students of them, are under CC BY-NC-SA 4.0, and so is the folder. For a network that you have
trained yourself --licence says what it is under.

The folder appears in one step, when it is complete. An earlier one in its place is replaced if nothing in it was
changed or added; with --overwrite it is replaced anyway, and files that belong to no model stay.

examples:
  curl -fLO https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-cifar10-32x32-cond-vp.pkl
  python -m sid_jax.convert edm-cifar10-32x32-cond-vp.pkl --out cifar10"""


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m sid_jax.convert", __doc__, EPILOG)
    parser.add_argument("source", metavar="IN", help="a pickle, or its place on the hub")
    parser.add_argument("--out", metavar="FOLDER", required=True, help="the folder to write")
    parser.add_argument("--revision", metavar="NAME", default="main", help="branch, tag or commit on the hub")
    parser.add_argument("--licence", metavar="TEXT", help="licence of the weights (default: NVIDIA's)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a network that was changed, or that sid_jax did not write"
    )
    arguments = parser.parse_args(argv)
    out = on_disk(arguments.out, "--out")
    bundle = open_source(arguments.source, revision=arguments.revision)
    edm.convert(bundle, out, licence=arguments.licence, overwrite=arguments.overwrite)
    print(f"wrote {arguments.out}; its README.md shows how to open it in PyTorch")
