"""The published teachers: as many parameters and tensors as their files have."""

import math

import jax
import numpy as np
import pytest
from flax import nnx

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


@pytest.mark.parametrize("name", [name for name in COUNTS if "ffhq" not in name])  # AFHQv2's have their shapes
def test_parameters_and_tensors(name):
    component = build("EDMPrecond", PUBLISHED[name])
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(component.params))
    assert (parameters, len(layout(component.module))) == COUNTS[name]


def test_work_of_a_forward_pass_and_of_its_encoder():
    component = build("EDMPrecond", PUBLISHED["edm-cifar10-32x32-cond-vp"])
    x, sigma = (jax.ShapeDtypeStruct(shape, np.float32) for shape in ((1, 32, 32, 3), (1,)))

    def gflop(method):
        def run(params, constants, x, sigma):
            return getattr(nnx.merge(component.graphdef, params, constants), method)(x, sigma)

        lowered = jax.jit(run).lower(component.params, component.constants, x, sigma)
        return lowered.cost_analysis()["flops"] / 1e9

    # XLA leaves out the products with zeros beyond the border, about one in twenty.
    assert gflop("__call__") == pytest.approx(42.4 * 0.95, rel=0.01)
    assert gflop("features") == pytest.approx(13.8 * 0.95, rel=0.01)


def test_the_table_is_whole():
    assert set(PUBLISHED) == set(COUNTS)
    for architecture in ("vp", "ve"):
        ffhq, afhq = (PUBLISHED[f"edm-{name}-64x64-uncond-{architecture}"] for name in ("ffhq", "afhqv2"))
        assert {**ffhq, "dropout": 0.25} == afhq and ffhq["dropout"] == 0.05
