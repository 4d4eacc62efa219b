"""The published teachers: as many parameters and tensors as their files have."""

import math

import jax
import pytest

from sid_jax.families.edm_published import PUBLISHED
from sid_jax.formats.state_dict import layout
from sid_jax.teachers import build

COUNTS = {
    "edm-cifar10-32x32-uncond-vp": (55_733_891, 425),
    "edm-cifar10-32x32-cond-vp": (55_735_299, 427),
    "edm-cifar10-32x32-uncond-ve": (56_397_827, 432),
    "edm-cifar10-32x32-cond-ve": (56_400_643, 434),
    "edm-ffhq-64x64-uncond-vp": (61_805_571, 553),
    "edm-afhqv2-64x64-uncond-vp": (61_805_571, 553),
    "edm-ffhq-64x64-uncond-ve": (62_761_091, 563),
    "edm-afhqv2-64x64-uncond-ve": (62_761_091, 563),
    "edm-imagenet-64x64-cond-adm": (295_899_267, 553),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_tensors(name):
    component = build("EDMPrecond", PUBLISHED[name])
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(component.params))
    assert (parameters, len(layout(component.module))) == COUNTS[name]


def test_the_table_is_whole():
    assert set(PUBLISHED) == set(COUNTS)
