"""Makes a small teacher of handwritten digits from scratch: those that come with the package were made so."""

if __name__ == "__main__":  # before the imports: they take seconds, and may fail
    from sid_jax.runtime.cli.start import start

    start("sid_jax.pretrain")

from collections.abc import Sequence

from sid_jax.digits import prompts as digits
from sid_jax.digits.classifier import measure_real
from sid_jax.digits.metric import DigitsMetric
from sid_jax.digits.models import chapters, make, schema_of
from sid_jax.digits.pixels import reduced
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.storage.files import on_disk

EPILOG = """\
With configs/digits_teacher.py it trains, one after the other, a digit classifier (the metric), an autoencoder, and a
UNet with its text encoder, and writes DIR/digits (a diffusers folder), DIR/digits_metric and DIR/digits_prompts.txt. It
takes under an hour on two cores.

With configs/edm_digits_teacher.py it trains a digit classifier for small pictures, and a class-conditional SongUNet in
pixels, and writes DIR/edm_digits (a folder as sid_jax.convert writes them) and DIR/edm_digits_metric.

examples:
  python -m sid_jax.pretrain --config configs/digits_teacher.py --out teacher --config.data=mnist
  python -m sid_jax.pretrain --config configs/edm_digits_teacher.py --out teacher --config.data=mnist"""


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m sid_jax.pretrain", __doc__, EPILOG)
    result = parser.add_mutually_exclusive_group(required=True)
    result.add_argument("--out", metavar="DIR", help="folder for the results")
    result.add_argument(
        "--real-features", metavar="DIR", help="only write the real pictures' features into this digits_metric anew"
    )
    arguments, config = command_line.parse_with_config(parser, argv, schema_of, chapters())
    if arguments.out:
        make(config, on_disk(arguments.out, "--out"))
    else:
        folder = on_disk(arguments.real_features, "--real-features")
        metric = DigitsMetric.load(folder, real=False)
        pictures, _ = digits.load_mnist(config.data)
        measure_real(metric, reduced(pictures, metric.resolution)).save_real(folder)
