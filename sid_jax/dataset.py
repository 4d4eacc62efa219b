"""Makes a data set of real images with labels, for the GAN term, in the form of EDM's tools: a zip file or a folder."""

if __name__ == "__main__":  # before the imports: they take seconds, and may fail
    from sid_jax.runtime.cli.start import start

    start("sid_jax.dataset")

import argparse
from collections.abc import Sequence
from pathlib import Path

from sid_jax.data.conversion import convert
from sid_jax.data.pairs import PairSource
from sid_jax.data.sources.cifar10 import Cifar10
from sid_jax.data.sources.image_zip import ImageZip
from sid_jax.data.sources.open import open_pairs
from sid_jax.errors import UserError
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.cli.outputs import check_new_file
from sid_jax.runtime.storage.files import on_disk

MOST_RESOLUTION = 2**13

EPILOG = """\
SOURCE is one of

  cifar-10-binary.tar.gz   CIFAR-10 as its authors publish it; or cifar-10-python.tar.gz, which is not unpickled
  a folder                 of images, in folders of their own for several classes (ImageNet's train/): the classes are
                           the folders at the top in the order of their names. A dataset.json in it has precedence
  a .zip file              with a dataset.json, such as this command writes
  tfds:NAME                a data set of tensorflow_datasets in the ArrayRecord format

An image is cut to the square in its middle and resized by Lanczos' filter. Grey ones become RGB. The result has the
files 00000/img00000000.png, ... in the order of the source, and dataset.json with their labels; it is there whole or
not at all, and equal images give equal bytes. Train from it by --config.real.source=OUT. Nothing in a source is
unpickled or executed.

examples:
  python -m sid_jax.dataset --source cifar-10-binary.tar.gz --out cifar10-32x32.zip
  python -m sid_jax.dataset --source imagenet/train --out imagenet-64x64.zip --resolution 64
  python -m sid_jax.dataset --source ffhq/images1024x1024 --out ffhq-64x64.zip --resolution 64 --no-labels
  python -m sid_jax.dataset --source tfds:cifar10 --out cifar10-32x32.zip"""


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m sid_jax.dataset", __doc__, EPILOG)
    parser.add_argument("--source", metavar="SOURCE", required=True, help="images: a file, a folder, or tfds:NAME")
    parser.add_argument("--out", metavar="OUT", required=True, help="FILE.zip, or a folder; not there yet")
    parser.add_argument("--resolution", metavar="R", type=int, help="pixels a side (default: as the images are)")
    parser.add_argument("--no-labels", action="store_true", help="leave labels out, for teachers that have none")
    parser.add_argument("--split", metavar="NAME", default="train", help="of tfds (default: train)")
    parser.add_argument("--data-dir", metavar="DIR", default="", help="of tfds (default: the library's)")
    parser.add_argument("--image", metavar="FEATURE", default="image", help="of tfds: the image (default: image)")
    parser.add_argument("--label", metavar="FEATURE", default="", help="of tfds: the class (default: the only one)")
    arguments = parser.parse_args(argv)
    if arguments.resolution is not None and not 1 <= arguments.resolution <= MOST_RESOLUTION:
        raise UserError(f"--resolution is {arguments.resolution}: use 1 to {MOST_RESOLUTION}")
    out = _free(arguments.out)
    try:
        source = _opened(arguments)
    except UserError as error:  # which names the keys of a config
        raise UserError(str(error).replace("real.", "--")) from error
    counts = convert(source, out, arguments.resolution, labels=not arguments.no_labels)
    of = "without labels" if -1 in counts else f"of {len(counts)} classes"
    print(f"wrote {sum(counts.values())} images {of} to {out}")


def _opened(arguments: argparse.Namespace) -> PairSource:
    name = arguments.source
    if name.startswith("tfds:"):
        features = {"image": arguments.image, "label": arguments.label}
        return open_pairs(name, split=arguments.split, data_dir=arguments.data_dir, **features)
    return Cifar10(name) if name.endswith(".gz") else ImageZip(name, class_folders=True)


def _free(out: str) -> Path:
    """The file or folder that will be written. Raises UserError where there is something, but for an empty folder."""
    path = on_disk(out, "--out")
    if path.suffix == ".zip" or not path.is_dir():
        check_new_file(out, "--out")
    elif any(path.iterdir()):
        raise UserError(f"--out {out} is a folder with something in it: name another, or empty it")
    return path
