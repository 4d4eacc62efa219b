"""Writes MNIST as image-text pairs, for the digits' GAN configs."""

if __name__ == "__main__":  # before the imports: they take seconds, and may fail
    from sid_jax.runtime.cli.start import start

    start("sid_jax.digits.pairs.__main__")

from collections.abc import Sequence
from pathlib import Path

from sid_jax.digits.prompts import load_mnist
from sid_jax.errors import UserError
from sid_jax.runtime.cli import command_line

EPILOG = """\
The result is the dataset "digit_pairs" of tensorflow_datasets in DIR: 32x32 pictures as the digits teacher was trained
on, each with a caption such as "a handwritten seven". It takes a minute.

examples:
  python -m sid_jax.digits.pairs --out data/tfds
  python -m sid_jax.digits.pairs --out data/tfds --data mnist.npz"""


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m sid_jax.digits.pairs", __doc__, EPILOG)
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of datasets to write into")
    parser.add_argument(
        "--data", metavar="SOURCE", default="mnist",
        help="a tensorflow_datasets name, or an .npz with images [N, 28, 28] uint8 and labels [N] (default: mnist)",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    print(f"wrote {build(arguments.data, Path(arguments.out))}")


def build(source: str, out: Path) -> Path:
    """Writes the dataset into `out` and returns its own folder; does nothing if it is there.

    Args:
      source: see `digits.load_mnist`.
      out: a folder of datasets, the `data_dir` of tensorflow_datasets.

    Raises:
      UserError: the source or the folder can't be used, or tensorflow_datasets is not installed.
    """
    images, labels = load_mnist(source)
    try:
        from sid_jax.digits.pairs.digit_pairs_dataset_builder import DigitPairs
    except ImportError as error:
        raise UserError(f"pip install tensorflow-datasets==4.9.10 importlib_resources ({error})") from error
    try:
        builder = DigitPairs(images=images, labels=labels, data_dir=out, file_format="array_record")
        builder.download_and_prepare()
    except OSError as error:
        raise UserError(f"{out} can't be written to: {error.strerror or error}") from error
    return Path(builder.data_dir)
