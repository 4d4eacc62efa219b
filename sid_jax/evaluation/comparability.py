"""Whether a measurement is comparable with the published table of its protocol, and if not, why not."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sid_jax.evaluation.protocols import Measure, Protocol
from sid_jax.evaluation.references import Reference
from sid_jax.evaluation.request import Request
from sid_jax.size import size_of


class Comparability(NamedTuple):
    """What a report says beside its numbers.

    Attributes:
      differences: from the protocol: with any of them the numbers are not those of the table.
      unknown: what can't be told from the files at hand.
    """

    differences: list[str]
    unknown: list[str]


def compared(request: Request, subjects: Sequence[Mapping[str, Any]], released: bool | None) -> Comparability:
    """What tells a measurement from the published ones.

    Args:
      request: what was measured.
      subjects: what is known of each model or folder, as `Subject.about` has it.
      released: whether Inception is the released one; None: it can't be told.
    """
    protocol = request.protocol
    differences: list[str] = []
    unknown: list[str] = []
    if not protocol.rows:
        differences.append("no table has numbers of this protocol")
    if not request.whole:
        differences.append(f"it is of {request.samples:,} images, and the protocol of {protocol.count:,}")
    _look_at_images(protocol, subjects, differences)
    _look_at_prompts(request, subjects, differences, unknown)
    if "inception" in request.networks():
        if released is False:
            differences.append("Inception has other weights than the released ones")
        elif released is None:
            unknown.append("whether Inception's weights are the released ones: the file is not the released file")
    for each in request.measures:
        if each not in protocol.measures:
            unknown.append(f"what {each.name} may be compared with, as the table of {protocol.name} does not have it")
    for name, reference in request.references.items():
        _look_at_reference(protocol, protocol.measure(name), reference, differences, unknown)
    return Comparability(differences, unknown)


def _look_at_images(protocol: Protocol, subjects: Sequence[Mapping[str, Any]], differences: list[str]) -> None:
    wanted = str(size_of(protocol.resolution))
    for size in dict.fromkeys(str(about["resolution"]) for about in subjects):
        if size != wanted:
            differences.append(f"the images have {size} px, and the protocol's {wanted}")


def _look_at_prompts(
    request: Request, subjects: Sequence[Mapping[str, Any]], differences: list[str], unknown: list[str]
) -> None:
    protocol = request.protocol
    if protocol.asked == "labels" and any("sha256" in about for about in subjects):
        unknown.append(
            "how much the labels matter: they are drawn uniformly here, as in EDM; SiD draws the data set's own"
        )
    if protocol.asked != "prompts":
        return
    digests = {about.get("captions", "") for about in subjects if "captions" in about}
    digests |= {request.prompts.sha256} if request.prompts else set()
    if not digests - {""}:
        unknown.append("which prompts the images are of")
    elif not protocol.prompts_sha256:
        unknown.append(f"whether the prompts are {protocol.prompts}")
    elif digests - {"", protocol.prompts_sha256}:
        differences.append(f"the prompts are not those of {protocol.prompts}: the file has another SHA-256")
    if request.prompts and len(request.prompts.lines) < request.samples:
        differences.append(f"there are {len(request.prompts.lines):,} prompts, which take turns")


def _look_at_reference(
    protocol: Protocol, measure: Measure, reference: Reference, differences: list[str], unknown: list[str]
) -> None:
    if reference.count is not None and measure.reference_count not in (None, reference.count):
        differences.append(
            f"the reference of {measure.name} is of {reference.count:,} images, and the protocol's of "
            f"{measure.reference_count:,}"
        )
    if not reference.about:
        unknown.append(
            f"how the reference of {measure.name} was made, as the file does not say: {measure.reference} is needed"
        )
