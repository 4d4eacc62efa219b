"""Encodes the image-text pairs of a config once, into a cache of latents, so that training needs no autoencoder."""

if __name__ == "__main__":  # before the imports: they take seconds, and may fail
    from sid_jax.runtime.cli.start import start

    start("sid_jax.encode")

from collections.abc import Sequence

import sid_jax.config
from sid_jax.experiment.encode import encode
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.storage.files import on_disk

EPILOG = """\
Train from the cache by --config.real.source=DIR. It takes 2 bytes for each element of a latent: 32 KB for an image of
512 px. Images that can't be used are left out, and counted.

example:
  python -m sid_jax.encode --config configs/sd15_1step_gan.py --config.real.source=photos --out photos_latents"""


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m sid_jax.encode", __doc__, EPILOG)
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of the cache")
    parser.add_argument("--batch", metavar="N", type=int, default=16, help="images at a time (default: 16)")
    arguments, config = sid_jax.config.parse(parser, argv)
    encode(config, on_disk(arguments.out, "--out"), arguments.batch)
