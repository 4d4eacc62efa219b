"""What is compiled: the published networks, the floor, the bytes of the state."""

import jax
import jax.numpy as jnp
import pytest

import sid_jax.config
from sid_jax.families.open import open_teacher
from sid_jax.families.published import PUBLISHED, PublishedConfigs
from sid_jax.planning import program, targets
from sid_jax.planning.compile import compile_for, overflow
from sid_jax.planning.report import measure, table
from sid_jax.sid import preset


@pytest.mark.parametrize("name, parameters", [("sd21base", 865_910_724), ("sdxl", 2_567_463_684)])
def test_published_networks_have_the_published_sizes(name, parameters):
    teacher = open_teacher(PublishedConfigs(name))
    assert sum(leaf.size for leaf in jax.tree.leaves(teacher.denoiser.params)) == parameters
    assert name in PUBLISHED.values()


@pytest.mark.parametrize("strategy, forwards", [("lsg", 18), ("zero_cfg", 11), ("anti_cfg", 16), ("none", 11)])
def test_floor(strategy, forwards):
    assert program.floor_forwards(preset(strategy)) == forwards
    assert program.floor_forwards(preset(strategy), 2.5, 2.5) == forwards + 3


def test_state_is_22_bytes_a_parameter(tiny):
    config = sid_jax.config.default()
    config.teacher, config.resolution, config.batch = str(tiny / "teacher"), 32, 8
    built = program.build_program(config, jax.devices("cpu")[:1])
    assert built.state_bytes == 22 * built.parameters + 12  # and three counts of updates
    assert built.images == 8


def test_precomputed_text_takes_the_place_of_tokens_and_encoders(tiny):
    config = sid_jax.config.default()
    config.teacher, config.resolution, config.batch = str(tiny / "teacher"), 32, 8
    config.text.precompute = True
    _, frozen, batch = program.build_program(config, jax.devices("cpu")[:1]).arguments
    assert frozen.conditions == ()
    assert batch.fake["encoder_hidden_states"].shape[0] == 8
    assert batch.empty["encoder_hidden_states"].shape[0] == 1


def test_a_program_that_does_not_fit_is_a_result():
    message = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 21.50G of 15.75G hbm. Exceeded by 5.75G."
    assert overflow(message) == 21.5 * 2**30
    message = "RESOURCE_EXHAUSTED: ... required for HLO temporaries (166.17G) exceeds available HBM (15.75G)."
    assert overflow(message) == int(166.17 * 2**30)
    assert overflow("INTERNAL: Used 21.50G of 15.75G hbm") is None


def test_figures_of_a_small_program(tiny):
    config = sid_jax.config.default()
    config.teacher, config.resolution, config.batch = str(tiny / "teacher"), 32, 8
    target = targets.parse("cpu:1")
    built = program.build_program(config, target.open())
    small = jax.jit(lambda a: a @ a).lower(jax.ShapeDtypeStruct((64, 64), jnp.float32))
    figures = measure(config, target, built, compile_for(target, small))
    assert figures["fits"] and figures["bytes_per_chip"]["arguments"] == 64 * 64 * 4
    assert figures["flops"] == 2 * 64**3
    assert figures["flops_ratio"] == figures["flops"] / (18 * 8 * figures["forward_flops_per_image"])
    assert "fits" in table(figures)
