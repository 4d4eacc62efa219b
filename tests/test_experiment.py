"""The state that a run begins with: what it is, and what the devices hold of it."""

import dataclasses
import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines import load_pipeline

from sid_jax import train
from sid_jax.errors import UserError
from sid_jax.experiment.networks import networks_of, new_state
from sid_jax.families.stable_diffusion import teacher_of
from sid_jax.models import Execution
from sid_jax.planning.program import condition
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.run.window import Window
from sid_jax.sid import Optimizer


def test_attention_that_can_not_run_is_one_line(tiny):
    teacher = teacher_of(load_pipeline(tiny / "teacher", parts=()))
    execution = Execution("cudnn", long_attention=1, platform="gpu")
    teacher = dataclasses.replace(teacher, denoiser=teacher.denoiser.rebuild(dtype=jnp.bfloat16, execution=execution))
    x_t, t = jax.ShapeDtypeStruct((1, *teacher.space.shape(32)), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    said = r"^config: attention\.implementation: 'cudnn' has head sizes that are multiples of 8 up to 128, not 4; use"
    with pytest.raises(UserError, match=said):
        jax.eval_shape(
            networks_of(teacher, 32).denoiser, teacher.denoiser.whole, x_t, t, condition(teacher, 32, 1), None
        )


def live_bytes(but=()):
    gc.collect()
    known = set(map(id, but))
    return sum(array.nbytes for array in jax.live_arrays() if id(array) not in known)


def test_the_devices_hold_22_bytes_a_parameter(tiny):
    before = jax.live_arrays()
    unet = load_pipeline(tiny / "teacher", parts=()).unet
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    params = unet.load(dtype=None, place=meshes.into_shards(mesh, jnp.float32)).params
    state, teacher = new_state(params, Optimizer(), jnp.bfloat16, mesh)
    count = sum(leaf.size for leaf in jax.tree.leaves(teacher))
    assert live_bytes(before) == 22 * count + 12  # and three counts of updates

    read = unet.load().params
    for copy in (state.generator, state.fake, state.ema):
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, copy, read)))
    assert not any(leaf.any() for leaf in jax.tree.leaves((state.generator_optimizer, state.fake_optimizer)))
    # To the bit what a run that goes on reads from the files.
    again = unet.load(dtype=None, place=meshes.into_shards(mesh, jnp.bfloat16)).params
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, teacher, again)))


def test_a_run_holds_no_more(tiny_arguments, tiny, monkeypatch):
    """Beside the state and the frozen networks only tokens, keys and metrics."""
    before, held, add = jax.live_arrays(), [], Window.add

    def hold(window, metrics):
        held.append(live_bytes(before))
        add(window, metrics)

    monkeypatch.setattr(Window, "add", hold)
    train.main([*tiny_arguments, "--config.images=16"])  # whose frozen networks are float32
    networks = load_pipeline(tiny / "teacher", parts=()).components
    sizes = {name: sum(x.size for x in jax.tree.leaves(network.params)) for name, network in networks.items()}
    expected = 24 * sizes["unet"] + 4 * sizes["text_encoder"] + 4 * sizes["vae"]
    assert len(held) == 2
    assert all(expected < bytes_held < expected + 2 * sizes["unet"] for bytes_held in held)
