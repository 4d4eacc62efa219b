"""The table of protocols, and what is asked for of each."""

import hashlib

import numpy as np
import pytest

from sid_jax.data.labels import NO_LABEL
from sid_jax.errors import UserError
from sid_jax.evaluation.asked import asked_for, drawn_labels
from sid_jax.evaluation.protocols import PROTOCOLS, counted, protocol_named
from sid_jax.teachers.conditions import LabelConditions


def test_names_are_those_of_the_table():
    assert list(PROTOCOLS) == [
        "coco30k", "coco10k-sdxl", "coco30k-train", "cifar10", "cifar10-cond", "ffhq64", "afhqv2-64", "imagenet64",
        "digits",
    ]  # fmt: skip
    with pytest.raises(UserError, match="--protocol is 'coco30': did you mean coco30k"):
        protocol_named("coco30")


def test_a_published_value_is_one_that_its_protocol_measures():
    for protocol in PROTOCOLS.values():
        values = {value for measure in protocol.measures for value in measure.values}
        assert all(set(row.values) <= values for row in protocol.rows), protocol.name


def test_metrics_are_chosen_by_name():
    coco = PROTOCOLS["coco30k"]
    assert [each.name for each in coco.chosen()] == ["fid", "clip_g14_photo"]
    assert [each.name for each in coco.chosen("fid")] == ["fid"]
    with pytest.raises(UserError, match="metric 'is': protocol coco30k has fid, clip_g14_photo"):
        coco.chosen("fid,is")
    with pytest.raises(UserError, match="twice"):
        coco.chosen("fid,fid")


def test_metrics_beside_those_of_the_table():
    """The kernel distance is of the FID's images as that sees them; FD-DINOv2 is for images of no prompts."""
    for name in ("coco30k", "imagenet64"):
        fid, kid = PROTOCOLS[name].chosen("fid,kid")
        assert (kid.variant, kid.transformed, kid.values) == (fid.variant, fid.transformed, ("kid", "kid_std"))
        assert kid.compares_features and not fid.compares_features
    (fd,) = PROTOCOLS["imagenet64"].chosen("fd_dinov2")
    assert (fd.network, fd.statistic) == ("dinov2", "fid") and fd.reference_at.endswith("img64.pkl")
    assert PROTOCOLS["ffhq64"].measure("fd_dinov2").reference_at == ""
    with pytest.raises(UserError, match="metric 'fd_dinov2': protocol coco30k has fid, clip_g14_photo, clip_g14,"):
        PROTOCOLS["coco30k"].chosen("fd_dinov2")
    with pytest.raises(UserError, match="metric 'kid': protocol digits has digits"):
        PROTOCOLS["digits"].chosen("kid")


@pytest.mark.parametrize(("count", "name"), [(10_000, "fid_10k"), (2048, "fid_2048"), (500, "fid_500")])
def test_names_carry_the_number_of_images(count, name):
    assert counted("fid", count) == name


def test_labels_are_uniform_and_depend_on_seed_and_row_alone():
    labels = drawn_labels(10, 5000, 0)
    assert labels[:100] == drawn_labels(10, 100, 0) != drawn_labels(10, 100, 1)
    counts = np.bincount(labels, minlength=10)
    assert len(counts) == 10 and abs(counts - 500).max() < 5 * 500**0.5
    assert hashlib.sha256(bytes(labels)).hexdigest()[:16] == "d02ec9270aac7690"


def test_a_model_that_takes_something_else_is_refused():
    labels, none = LabelConditions(3), LabelConditions(0)
    assert set(asked_for(PROTOCOLS["cifar10-cond"], labels, 50, 0, [])) == {0, 1, 2}
    assert asked_for(PROTOCOLS["cifar10"], none, 3, 0, []) == [NO_LABEL] * 3
    with pytest.raises(UserError, match="protocol cifar10 is of models that take neither prompts nor labels"):
        asked_for(PROTOCOLS["cifar10"], labels, 3, 0, [])
    with pytest.raises(UserError, match="is of models that take prompts, and this one takes class labels"):
        asked_for(PROTOCOLS["coco30k"], labels, 3, 0, [])
