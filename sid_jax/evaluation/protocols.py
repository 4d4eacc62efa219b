"""What published tables measure: for each table the images, what is done to them, the reference and the metrics.

A number is comparable with a published one only where all of this is the same, so a protocol is a name for all of it.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sid_jax.errors import UserError


@dataclass(frozen=True)
class HostTransform:
    """What PIL does to the bytes of an image before its features: a centre crop to a square, then Lanczos.

    Attributes:
      size: the side after it, in pixels.
      offset: how the crop begins where what is cut off is odd, see `transforms.centre_crop`: "round" or "floor".
    """

    size: int
    offset: str = "round"


@dataclass(frozen=True)
class Measure:
    """One metric: a feature network with its input, and a statistic of the features.

    Attributes:
      name: what it is called, as `--metrics` and the keys of results have it.
      network: "inception", "dinov2", "clip" or "digits".
      variant: of the network's input: "tf1", "torch", "clean" or "patch" of Inception, "bicubic" of DINOv2, or the name
        of a CLIP score.
      statistic: "fid", "kid", "is", "pr" (precision and recall), "mean" or "digits".
      transformed: whether it looks at what the host's transform leaves of an image, and not at the image itself.
      reference: what its reference is made of; empty: it has none.
      reference_count: images that the published reference is of; None: not said by who published it.
      reference_at: where the published reference is; empty: it is made by `python -m sid_jax.reference`.
    """

    name: str
    network: str
    variant: str
    statistic: str
    transformed: bool = False
    reference: str = ""
    reference_count: int | None = None
    reference_at: str = ""

    @property
    def values(self) -> tuple[str, ...]:
        """The names of what it gives."""
        return {
            "pr": ("precision", "recall"),
            "is": ("is", "is_std"),
            "kid": ("kid", "kid_std"),
            "digits": ("frechet_distance", "precision", "recall", "prompt_accuracy"),
        }.get(self.statistic, (self.name,))

    @property
    def compares_features(self) -> bool:
        """Whether it needs features of single real images, and not only their mean and covariance."""
        return self.statistic in ("pr", "kid")


SCORES = tuple(
    Measure(name, "clip", name, "mean")
    for name in ("clip_g14_photo", "clip_g14", "clip_l14", "pickscore", "aesthetic_v2", "hpsv2", "hpsv2.1")
)
"""Scores of pictures with prompts: a protocol with prompts can be asked for any of them, by name."""


@dataclass(frozen=True)
class Row:
    """A row of a published table.

    Attributes:
      model: whose numbers they are.
      values: name of a measure's value to what was published.
      source: the repository or the paper that has it.
    """

    model: str
    values: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class Protocol:
    """What one published table measures.

    Attributes:
      name: of the protocol.
      about: what it is, in a line.
      count: images; 0: as many as are asked for.
      asked: what they are of: "prompts", "labels" (uniform, drawn for each image), "none" or "any".
      resolution: of the generated images, in pixels; 0: any.
      measures: what the table has, and is measured if nothing else is asked for.
      transform: what is done to an image before its features; None: nothing.
      prompts: the file that has the prompts, in words.
      prompts_sha256: its digest; empty: it is not known.
      seeds: how many measurements a published number is of.
      rows: what was published.
    """

    name: str
    about: str
    count: int
    asked: str
    resolution: int
    measures: tuple[Measure, ...]
    transform: HostTransform | None = None
    prompts: str = ""
    prompts_sha256: str = ""
    seeds: int = 1
    rows: tuple[Row, ...] = field(default=(), repr=False)

    def measure(self, name: str) -> Measure:
        """One of `known`.

        Raises:
          UserError: there is none of that name.
        """
        known = self.known()
        for measure in known:
            if measure.name == name:
                return measure
        names = ", ".join(measure.name for measure in known)
        raise UserError(f"metric {name!r}: protocol {self.name} has {names}")

    def known(self) -> tuple[Measure, ...]:
        """Its measures, and what it can be asked for by name.

        These are the kernel distance beside each FID; FD-DINOv2 where the images are of no prompts, and the scores of
        `SCORES` where they are.
        """
        more = [each for each in SCORES if each not in self.measures] if self.asked == "prompts" else []
        fid = next((each for each in self.measures if each.name == "fid"), None)
        if fid is not None:
            more.append(
                dataclasses.replace(fid, name="kid", statistic="kid", reference=_WITH_FEATURES, reference_at="")
            )
            if self.asked != "prompts":
                more.append(_fd_dinov2(self.name))
        return (*self.measures, *more)

    def chosen(self, names: str = "") -> tuple[Measure, ...]:
        """Those of its measures that a text names, separated by commas; an empty one: all.

        Raises:
          UserError: it has none of a name, or one is named twice.
        """
        wanted = [name.strip() for name in names.split(",")] if names else [each.name for each in self.measures]
        if len(set(wanted)) < len(wanted):
            raise UserError(f"metrics {names!r}: one of them is there twice")
        return tuple(self.measure(name) for name in wanted)


DIGITS = "digits"

_VAL2014 = "all 40,504 images of COCO val2014, with the protocol's transform"
_LSG_README, _DMD2 = "SiD-LSG, README", "DMD2, README"
_CLIP_PHOTO = Measure("clip_g14_photo", "clip", "clip_g14_photo", "mean")
_EDM_REFERENCES = "https://nvlabs-fi-cdn.nvidia.com/edm/fid-refs/"
_ADM_IMAGENET = (
    "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet/64/"
    "VIRTUAL_imagenet64_labeled.npz"
)


def _edm(file: str, count: int | None = None) -> Measure:
    """The FID of EDM's tables, against the statistics that it published."""
    return Measure("fid", "inception", "tf1", "fid", True, f"EDM's {file}", count, _EDM_REFERENCES + file)


_WITH_FEATURES = "the protocol's real images, with features of at least 1,000 of them"
_EDM2_IMAGENET = "https://nvlabs-fi-cdn.nvidia.com/edm2/dataset-refs/img64.pkl"


def _fd_dinov2(protocol: str) -> Measure:
    """The Frechet distance of DINOv2's features. EDM2 published one of ImageNet, cropped as ADM does it."""
    measure = Measure("fd_dinov2", "dinov2", "bicubic", "fid", True, "the training images by DINOv2")
    if protocol == "imagenet64":
        edm2 = "EDM2's img64.pkl, of another crop than EDM's"
        return dataclasses.replace(measure, reference=edm2, reference_at=_EDM2_IMAGENET)
    return measure


_IS = Measure("is", "inception", "tf1", "is", True)


def _fids(source: str, *rows: tuple[str, float]) -> tuple[Row, ...]:
    return tuple(Row(model, {"fid": fid}, source) for model, fid in rows)


_LSG = {  # kappa: FID and CLIP score
    "SD1.5": {
        "1.5": (8.71, 0.302), "1.5, longer": (8.15, 0.304),
        "2": (9.56, 0.313), "3": (13.21, 0.314), "4.5": (16.59, 0.317),
    },
    "SD2.1-base": {"1.5": (9.52, 0.308), "2": (10.97, 0.318), "3": (13.50, 0.321), "4.5": (16.54, 0.322)},
}  # fmt: skip

_COCO30K_ROWS = (
    *(
        Row(f"SiD-LSG {teacher}, one step, kappa {kappa}", {"fid": fid, "clip_g14_photo": clip}, _LSG_README)
        for teacher, rows in _LSG.items()
        for kappa, (fid, clip) in rows.items()
    ),
    *_fids(_DMD2, ("DMD2 SD1.5 without GAN", 9.28), ("DMD2 SD1.5", 8.35), ("GigaGAN, reproduced", 9.06)),
)

_ALL = (
    Protocol(
        "coco30k",
        "zero-shot COCO 2014 of SiD-LSG, DMD2 and GigaGAN: 30,000 captions, 512 px, clean-fid's resize",
        30_000,
        "prompts",
        512,
        (Measure("fid", "inception", "clean", "fid", True, _VAL2014, 40_504), _CLIP_PHOTO),
        HostTransform(256),
        "captions.txt of SiD-LSG, which is captions_coco14_test.txt of DMD2",
        "edabd2a556026cbf5d36a5fffa35ad43d7ba71b72f6d640b727c1edefb7f1945",
        rows=_COCO30K_ROWS,
    ),
    Protocol(
        "coco10k-sdxl",
        "DMD2's table of SDXL: 10,000 captions, 1024 px, clean-fid's resize from 512",
        10_000,
        "prompts",
        1024,
        (
            Measure("fid", "inception", "clean", "fid", True, "the 10,000 images of DMD2's coco10k/subset", 10_000),
            Measure(
                "patch_fid",
                "inception",
                "patch",
                "fid",
                False,
                "the centres of 299 px of the 10,000 images of DMD2's coco10k/subset",
                10_000,
            ),
            _CLIP_PHOTO,
        ),
        HostTransform(512),
        "the captions of DMD2's coco10k/all_prompts.pkl",
        rows=_fids(
            _DMD2, ("DMD2 SDXL, 4 steps", 19.32), ("DMD2 SDXL LoRA, 4 steps", 19.68), ("DMD2 SDXL, 1 step", 19.01)
        ),
    ),
    Protocol(
        "coco30k-train",
        "what SiD-LSG logs while it trains, and no number of a table",
        30_000,
        "prompts",
        512,
        (
            Measure("fid", "inception", "tf1", "fid", True, _VAL2014, 40_504),
            Measure("clip_g14", "clip", "clip_g14", "mean"),
        ),
        HostTransform(256, "floor"),
        "captions of COCO val2014, in lower case, shuffled",
    ),
    Protocol(
        "cifar10",
        "CIFAR-10 without labels, of EDM, SiD and SiDA",
        50_000,
        "none",
        32,
        (_edm("cifar10-32x32.npz", 50_000), _IS),
        seeds=10,
        rows=(
            *_fids("SiD, README", ("SiD, one step", 1.923)),
            *_fids("SiDA, README", ("SiDA, one step", 1.499)),
        ),
    ),
    Protocol(
        "cifar10-cond",
        "CIFAR-10 with labels, of EDM, SiD and SiDA",
        50_000,
        "labels",
        32,
        (_edm("cifar10-32x32.npz", 50_000), _IS),
        seeds=10,
        rows=(*_fids("SiD, README", ("SiD, one step", 1.710)), *_fids("SiDA, README", ("SiDA, one step", 1.396))),
    ),
    Protocol(
        "ffhq64",
        "FFHQ at 64 px, of EDM, SiD and SiDA",
        50_000,
        "none",
        64,
        (_edm("ffhq-64x64.npz"),),
        seeds=10,
        rows=(*_fids("SiD, README", ("SiD, one step", 1.550)), *_fids("SiDA, README", ("SiDA, one step", 1.040))),
    ),
    Protocol(
        "afhqv2-64",
        "AFHQ-v2 at 64 px, of EDM, SiD and SiDA",
        50_000,
        "none",
        64,
        (_edm("afhqv2-64x64.npz"),),
        seeds=10,
        rows=(*_fids("SiD, README", ("SiD, one step", 1.628)), *_fids("SiDA, README", ("SiDA, one step", 1.276))),
    ),
    Protocol(
        "imagenet64",
        "ImageNet at 64 px with labels, of EDM, SiD and SiDA; precision and recall as in ADM",
        50_000,
        "labels",
        64,
        (
            _edm("imagenet-64x64.npz"),
            Measure(
                "pr",
                "inception",
                "tf1",
                "pr",
                True,
                "the 10,000 images of ADM's VIRTUAL_imagenet64_labeled.npz",
                10_000,
                _ADM_IMAGENET,
            ),
        ),
        seeds=10,
        rows=(
            *_fids("SiD, README", ("SiD, one step", 1.524)),
            *_fids("SiDA, README", ("SiDA, one step", 1.110)),
            *_fids(_DMD2, ("DMD2", 2.61), ("DMD2", 1.51), ("DMD2", 1.28)),
            *_fids("FastGen, README", ("DMD2 of FastGen", 1.12), ("f-distill of FastGen", 1.11)),
        ),
    ),
    Protocol(
        DIGITS,
        "the bundled digits, by their own small network: a table for learning how all of this works",
        0,
        "any",
        0,
        (Measure("digits", "digits", "digits", "digits", reference="the digits that come with the package"),),
    ),
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({protocol.name: protocol for protocol in _ALL})
"""All of them, by their names."""


def protocol_named(name: str, what: str = "--protocol") -> Protocol:
    """A protocol by its name.

    Args:
      name: as the user wrote it.
      what: begins the message of the error: the flag or the key.

    Raises:
      UserError: there is none of that name.
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    close = difflib.get_close_matches(name, PROTOCOLS, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UserError(f"{what} is {name!r}: {hint}there are {', '.join(PROTOCOLS)}")


def counted(name: str, count: int) -> str:
    """A metric's name with how many images it is of: `fid_10k`, `fid_2048`. Without the number it is the protocol's."""
    return f"{name}_{count // 1000}k" if count and count % 1000 == 0 else f"{name}_{count}"
