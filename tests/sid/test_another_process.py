"""The train step with a process that shares nothing with VP: it asks a process for no more than `Process` says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_network
from processes import RectifiedFlow
from repeated_draws import draws_of

from sid_jax import sid

B = 4
SHAPE = (4, 4, tiny_network.CHANNELS)
FLOW, TIMES = RectifiedFlow(), sid.Uniform(0.001, 1.0)
OPTIMIZER = sid.Optimizer(fake_lr=1e-3, generator_lr=1e-3)
SETTINGS = sid.Settings(batch=B, shape=SHAPE, seed=2, optimizer=OPTIMIZER)
FROZEN = sid.Frozen(tiny_network.init(0), tiny_network.init_text(9))
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def told(network):
    """A network of the train step, which is told the process's time."""

    def call(params, x, t, cond, dropout_key):
        assert t.dtype == jnp.float32
        return network(params, x, FLOW.network_time(t), cond, dropout_key)

    return call


NETWORKS = sid.Networks(told(tiny_network.denoiser), tiny_network.encode, told(tiny_network.discriminator))


def batch_of():
    rng = np.random.default_rng(1)
    fake, generator, of_real = rng.integers(0, tiny_network.VOCABULARY, (3, B, tiny_network.LENGTH))
    real = sid.Real(rng.normal(size=(B, *SHAPE)).astype(np.float32), of_real)
    return sid.Batch(fake, generator, np.zeros((1, tiny_network.LENGTH), int), real)


@pytest.mark.parametrize(
    ("num_steps", "noise", "first", "changes"),
    [
        (1, "fresh", "scaled", {}),
        (4, "fresh", "unit", {"guidance": sid.preset("lsg", 1.5)}),
        (4, "ddim", "scaled", {"gan": sid.Gan(lambda_d=1.0, lambda_g=0.5), "accumulation": 2}),
        (2, "fixed", "scaled", {"loss": sid.Loss(weighting="1_minus_sigma_squared")}),
    ],
)
def test_a_few_updates(num_steps, noise, first, changes):
    few_step = sid.FewStep(FLOW, num_steps, FLOW.default_start(num_steps), noise, first)
    settings = dataclasses.replace(SETTINGS, **changes)
    step = sid.jit_train_step(NETWORKS, few_step, TIMES, settings, compiler_options=QUICK)
    state = sid.TrainState.create(tiny_network.init(0))
    for _ in range(4):
        state, metrics = step(state, FROZEN, batch_of())
        assert metrics["dropped_fake"] == metrics["dropped_generator"] == metrics["nonfinite_grads"] == 0
        assert metrics["fake_grad_norm"] > 0 and metrics["generator_grad_norm"] > 0
    assert int(state.step) == 4
    for name in ("fake", "generator", "ema"):
        trained = getattr(state, name)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained))
        assert all(np.any(trained[key] != FROZEN.base[key]) for key in trained)


def test_losses_by_hand():
    """Both losses of a first update, from the draws of its keys and the row of rectified flow in section 2."""
    few_step = sid.FewStep(FLOW, 1, 1.0)
    settings = dataclasses.replace(SETTINGS, optimizer=dataclasses.replace(OPTIMIZER, fake_lr=0.0))
    params = {name: tiny_network.init(seed) for seed, name in enumerate(("teacher", "fake", "generator"))}
    state = dataclasses.replace(
        sid.TrainState.create(params["teacher"]), fake=params["fake"], generator=params["generator"]
    )
    batch, draws = batch_of(), draws_of(settings, few_step, TIMES, 0)
    _, metrics = sid.make_train_step(NETWORKS, few_step, TIMES, settings)(state, FROZEN, batch)

    def images(name):
        return draws[name].transpose(0, 2, 3, 1).astype(np.float32)

    def v(name, x_t, t, cond):
        return np.asarray(tiny_network.denoiser(params[name], x_t, 1000 * t, cond))

    def draw(update, read):
        """x_g, and x_t = (1 - t) x_g + t e with its t and e; the generator's own time is 1, and its input z."""
        cond = tiny_network.encode(FROZEN.conditions, read)
        z = draws[f"{update}_z"][0].transpose(0, 2, 3, 1).astype(np.float32)
        x_g = z - v("generator", z, np.ones(B, np.float32), cond)
        t, e = draws[f"{update}_t"], images(f"{update}_noise")
        assert t.dtype == np.float32 and (t > 0).all() and (t < 1).all()
        each = t[:, None, None, None]
        return x_g, (1 - each) * x_g + each * e, t, e, cond

    x_g, x_t, t, e, cond = draw("fake", batch.fake)
    expected = np.square(v("fake", x_t, t, cond) - (e - x_g)).sum() / B
    assert float(metrics["fake_loss"]) == pytest.approx(expected, rel=1e-4)

    x_g, x_t, t, e, cond = draw("generator", batch.generator)
    y_real, y_fake = (x_t - t[:, None, None, None] * v(name, x_t, t, cond) for name in ("teacher", "fake"))
    w = 1 / np.abs(x_g - y_real).mean(axis=(1, 2, 3), keepdims=True)
    expected = (w * (y_real - y_fake) * (y_fake - x_g)).sum() / B
    assert float(metrics["generator_loss"]) == pytest.approx(expected, rel=1e-4)
