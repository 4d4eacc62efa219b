"""Makes the statistics of real images that a protocol compares with: what a Frechet distance needs beside a student."""

if __name__ == "__main__":  # before the imports: they take seconds, and may fail
    from sid_jax.runtime.cli.start import start

    start("sid_jax.reference", preemptible=True)

import argparse
from collections.abc import Sequence

from sid_jax.data.sources.pictures import open_pictures
from sid_jax.errors import UserError
from sid_jax.evaluation.dinov2_features import NETWORK
from sid_jax.evaluation.networks import FeatureNetworks
from sid_jax.evaluation.protocols import Measure, Protocol, protocol_named
from sid_jax.evaluation.real_statistics import RealImages, measure_real_images
from sid_jax.evaluation.request import WIDTHS
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.cli.outputs import check_new_file
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.devices import processes
from sid_jax.runtime.storage.files import on_disk

MOST_FEATURES = 2**17  # 1 GB of Inception's in float32

EPILOG = """\
PLACE is one of

  a folder                 of PNG, JPEG or WebP files, in folders in it too
  a .zip file              of such files
  "shards/*.tar"           tar files, such as those of WebDataset
  tfds:NAME:SPLIT          a data set of tensorflow_datasets in the ArrayRecord format

Images are decoded as clean-fid and pytorch-fid decode them, and then resized as the protocol has it. One that can't be
read is an error. FILE is an .npz with mu, sigma, num_images and about: pytorch-fid reads it too, and so does
sid_jax.evaluate by --reference. About says by which network and transform it was made, and of which images; evaluate
refuses a file that was made in another way than its protocol needs.

Every few minutes the sums are saved beside FILE (340 MB), and the same command goes on from there. Tables of EDM, SiD
and SiDA are measured against EDM's own files, which sid_jax.evaluate reads as they are.

examples:
  python -m sid_jax.reference --protocol coco30k --images val2014 --out refs/coco30k.npz
  python -m sid_jax.reference --protocol coco30k --images tfds:coco_captions:val+test+restval --out refs/coco30k.npz
  python -m sid_jax.reference --protocol coco10k-sdxl --metric patch_fid --images subset --out refs/patch.npz
  python -m sid_jax.reference --protocol imagenet64 --images imagenet-64x64.zip --features 10000 --out refs/own.npz
  python -m sid_jax.reference --protocol ffhq64 --metric fd_dinov2 --images ffhq-64x64.zip --out refs/dinov2.npz"""


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m sid_jax.reference", __doc__, EPILOG)
    parser.add_argument("--protocol", metavar="P", required=True, help="whose transform is used, such as coco30k")
    parser.add_argument("--images", metavar="PLACE", required=True, help="the real images")
    parser.add_argument("--out", metavar="FILE", required=True, help="the .npz file; not there yet")
    parser.add_argument("--metric", metavar="M", default="", help="fid (default), or patch_fid, pr, kid, fd_dinov2")
    parser.add_argument("--inception", metavar="FILE", default="", help="its weights (default: the released ones)")
    parser.add_argument("--dinov2", metavar="PLACE", default="", help=f"folder or hub id (default: {NETWORK})")
    parser.add_argument("--features", metavar="K", type=int, default=0, help="keep those of K images, for pr and kid")
    parser.add_argument("--batch", metavar="B", type=int, default=64, help="images a device at a time (default: 64)")
    parser.add_argument("--data-dir", metavar="DIR", default="", help="of tfds (default: the library's)")
    processes.add_arguments(parser)
    arguments = parser.parse_args(argv)
    protocol = protocol_named(arguments.protocol)
    measure = _measure_of(protocol, arguments.metric)
    places = _networks(arguments, measure)
    images = _opened(arguments, protocol, measure)
    processes.join(arguments)
    with processes.detecting_lost_processes():
        networks = FeatureNetworks([measure], places, meshes.make_mesh())
        measure_real_images(images, networks, arguments.batch)
    if processes.is_first():
        _say(images)


def _measure_of(protocol: Protocol, name: str) -> Measure:
    """The metric that a reference is for."""
    with_one = [each for each in protocol.known() if each.network in WIDTHS and each.reference]
    if not with_one:
        raise UserError(f"--protocol {protocol.name} has no reference of real images")
    if not name:
        return with_one[0]
    measure = protocol.measure(name)
    if measure not in with_one:
        raise UserError(f"--metric {name} has no reference: use {' or '.join(each.name for each in with_one)}")
    return measure


def _networks(arguments: argparse.Namespace, measure: Measure) -> dict[str, str]:
    """Where the metric's network is, if that is said."""
    given = {name: place for name in WIDTHS if (place := getattr(arguments, name))}
    for name in given:
        if name != measure.network:
            raise UserError(f"--{name}: {measure.name} does not need it")
    return given


def _opened(arguments: argparse.Namespace, protocol: Protocol, measure: Measure) -> RealImages:
    if not arguments.out.endswith(".npz"):
        raise UserError(f"--out {arguments.out}: name a file that ends in .npz")
    if not 1 <= arguments.batch <= 2**12:
        raise UserError(f"--batch is {arguments.batch}: use 1 to {2**12}")
    out = on_disk(arguments.out, "--out")
    out.parent.mkdir(parents=True, exist_ok=True)
    check_new_file(arguments.out, "--out")
    pictures = open_pictures(arguments.images, "--images", arguments.data_dir)
    count = len(pictures.names)
    if count < 2:
        raise UserError(f"--images {arguments.images} has one image: a covariance needs two")
    if not 0 <= arguments.features <= min(count, MOST_FEATURES):
        raise UserError(f"--features is {arguments.features}: use 0 to {min(count, MOST_FEATURES)}")
    return RealImages(pictures, arguments.images, protocol, measure, arguments.features, out)


def _say(images: RealImages) -> None:
    """What was written, and whether it is what the published table has."""
    count, measure = len(images.pictures.names), images.measure
    print(f"wrote the statistics of {count:,} images to {images.out}")
    if measure.reference_count not in (None, count):
        print(f"note: the table's reference is of {measure.reference_count:,} images: {measure.reference}")
    elif measure.reference_at:
        print(f"note: the table's reference is {measure.reference_at}")
