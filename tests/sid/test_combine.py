"""What is trained is combined with a frozen base: here a pair of thin matrices, whose product is added to one of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_network
from processes import stable_diffusion
from repeated_draws import gradients

from sid_jax import sid

B, RANK = 4, 2
SHAPE = (4, 4, tiny_network.CHANNELS)
FEW_STEP, TIMES = sid.FewStep(stable_diffusion(), 1, 625), sid.Uniform()
BASE, TABLE = tiny_network.init(0), tiny_network.init_text(9)
GAN = sid.Gan(lambda_d=0.7, lambda_g=30.0)
SETTINGS = sid.Settings(batch=B, shape=SHAPE, guidance=sid.preset("lsg", 1.5))
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def combine(base, pair):
    """W + down up; the teacher is the base by itself."""
    return base if pair is None else base | {"text": base["text"] + pair["down"] @ pair["up"]}


def pair_of(seed):
    rng = np.random.default_rng(seed)
    shapes = {"down": (tiny_network.TEXT, RANK), "up": (RANK, tiny_network.HIDDEN)}
    return {name: jnp.asarray(rng.normal(size=shape) / 4, jnp.float32) for name, shape in shapes.items()}


def make(settings, combine=None):
    networks = sid.Networks(tiny_network.denoiser, tiny_network.encode, tiny_network.discriminator)
    if combine is not None:
        networks = dataclasses.replace(networks, combine=combine)
    return sid.jit_train_step(networks, FEW_STEP, TIMES, settings, compiler_options=QUICK)


def batch_of():
    rng = np.random.default_rng(1)
    fake, generator, of_real = rng.integers(1, tiny_network.VOCABULARY, (3, B, tiny_network.LENGTH))
    real = sid.Real(rng.normal(size=(B, *SHAPE)).astype(np.float32), of_real)
    return sid.Batch(fake, generator, np.zeros((1, tiny_network.LENGTH), int), real)


def state_of(fake, generator):
    state = sid.TrainState.create(generator)
    return dataclasses.replace(state, fake=jax.tree.map(jnp.array, fake))


@pytest.mark.parametrize("which", ["fake", "generator"])
def test_gradients_are_those_of_the_sum(which):
    """The losses are those of networks with the matrix W + D U, and dL/dU = D^T dL/dW, dL/dD = dL/dW U^T.

    The other run trains every parameter, from the same networks; its teacher is the base. The rate of the update that
    is not looked at is 0, so that both runs compute the gradients of the generator with one fake network.
    """
    optimizer = dataclasses.replace(sid.Optimizer(0.0, 0.0, eps=1.0), **{f"{which}_lr": 1e-2})
    settings = dataclasses.replace(SETTINGS, optimizer=optimizer, gan=GAN)
    pairs = {"fake": pair_of(1), "generator": pair_of(2)}
    whole = {name: combine(BASE, pair) for name, pair in pairs.items()}
    frozen = sid.Frozen(BASE, TABLE)
    found, metrics = make(settings, combine)(state_of(**pairs), frozen, batch_of())
    of_whole, wanted_metrics = make(settings)(state_of(**whole), frozen, batch_of())
    norms = {"fake_grad_norm", "generator_grad_norm"}
    for name in metrics.keys() - norms if which == "generator" else {"fake_loss", "dropped_fake"}:
        assert float(metrics[name]) == pytest.approx(float(wanted_metrics[name]), rel=1e-4), name

    def gradient(old, new):
        return gradients(old[which], getattr(new, which), getattr(new, f"{which}_optimizer").nu, optimizer.beta2)

    of_pair, of_text = gradient(pairs, found), gradient(whole, of_whole)["text"]
    down, up = (np.asarray(pairs[which][name]) for name in ("down", "up"))
    for name, wanted in {"down": of_text @ up.T, "up": down.T @ of_text}.items():
        assert np.linalg.norm(wanted) > 0
        assert np.linalg.norm(of_pair[name] - wanted) < 1e-3 * np.linalg.norm(wanted), name


@pytest.mark.parametrize("gan", [sid.Gan(), GAN], ids=["data-free", "gan"])
def test_only_the_pair_is_trained(gan):
    settings = dataclasses.replace(SETTINGS, optimizer=sid.Optimizer(1e-2, 1e-2), gan=gan)
    asked = []

    def spy(base, pair):
        asked.append(pair is None)
        return combine(base, pair)

    step, start = make(settings, spy), pair_of(1)
    state, frozen = sid.TrainState.create(start), sid.Frozen(jax.tree.map(jnp.array, BASE), TABLE)
    for _ in range(3):
        state, metrics = step(state, frozen, batch_of())
    assert True in asked and False in asked
    trees = (state.generator, state.generator_optimizer.nu, state.fake, state.fake_optimizer.nu, state.ema)
    for tree in trees:
        assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, start)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
    for name in ("generator", "fake", "ema"):
        assert all(np.all(np.asarray(getattr(state, name)[key]) != start[key]) for key in start)
    jax.tree.map(np.testing.assert_array_equal, frozen.base, BASE)
    assert metrics["nonfinite_grads"] == 0


def test_the_teacher_is_the_base():
    """What the pair adds does not reach the teacher: with a base of bad numbers the generator's loss is left out."""
    bad = BASE | {"bias_out": np.full_like(BASE["bias_out"], np.nan)}

    def mend(base, pair):
        return base if pair is None else combine(BASE, pair)

    _, metrics = make(SETTINGS, mend)(sid.TrainState.create(pair_of(1)), sid.Frozen(bad, TABLE), batch_of())
    assert (metrics["dropped_fake"], metrics["dropped_generator"]) == (0, B)


def test_by_default_all_is_trained():
    combine = sid.Networks(tiny_network.denoiser).combine
    assert combine("base", "trained") == "trained" and combine("base", None) == "base"
