"""Adam with one moment against optax and PyTorch, and the clean-up of gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from sid_jax.sid import adam, clip, sanitize

LR, BETA2, EPS = 1e-2, 0.999, 1e-6


def problem(steps=30):
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(7, 5)).astype(np.float32), "b": rng.normal(size=5).astype(np.float32)}
    gradients = [
        {name: (rng.normal(size=p.shape) * 10 ** rng.uniform(-4, 2)).astype(np.float32) for name, p in params.items()}
        for _ in range(steps)
    ]
    return params, gradients


def at(rate, *arguments):
    return optax.chain(adam(*arguments), optax.scale(-rate))


def run(optimizer, params, gradients):
    state = optimizer.init(params)
    for g in gradients:
        updates, state = optimizer.update(g, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def test_equals_adam_with_a_first_moment_that_is_the_gradient():
    """The second moment to the bit, the update to rounding: it is multiplied where Adam divides."""
    params, gradients = problem()
    ours, (state, _) = run(at(LR, 0.0, BETA2, EPS), params, gradients)
    theirs, (whole, _) = run(optax.adam(LR, b1=0.0, b2=BETA2, eps=EPS), params, gradients)
    jax.tree.map(np.testing.assert_array_equal, state.nu, whole.nu)
    for name in params:
        np.testing.assert_allclose(ours[name] - params[name], theirs[name] - params[name], rtol=2e-6, atol=1e-7)
    assert int(state.count) == len(gradients)


@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_equals_torch(beta1):
    params, gradients = problem()
    ours, _ = run(at(LR, beta1, BETA2, EPS), params, gradients)
    theirs = {name: torch.nn.Parameter(torch.tensor(p)) for name, p in params.items()}
    optimizer = torch.optim.Adam(theirs.values(), lr=LR, betas=(beta1, BETA2), eps=EPS)
    for g in gradients:
        for name, p in theirs.items():
            p.grad = torch.tensor(g[name])
        optimizer.step()
    for name, p in theirs.items():
        np.testing.assert_allclose(ours[name], p.detach(), rtol=1e-5, atol=1e-6)


def test_one_moment_is_stored():
    params, _ = problem(0)
    assert len(jax.tree.leaves(adam().init(params))) == 1 + len(params)
    assert len(jax.tree.leaves(adam(0.9).init(params))) == 1 + 2 * len(params)


def test_sanitize():
    gradients = {
        "a": jnp.array([1.0, jnp.nan, jnp.inf, -jnp.inf, -2.0]),
        "b": jnp.array([[3e19, -1e25], [0.0, 1e19]]),
    }
    clean, count = sanitize(gradients)
    np.testing.assert_array_equal(clean["a"], np.float32([1, 0, 1e5, -1e5, -2]))
    np.testing.assert_array_equal(clean["b"], np.float32([[1e5, -1e5], [0, 1e19]]))
    assert count == 5 and count.dtype == jnp.float32
    assert np.isfinite(np.square(clean["b"])).all()


def test_sanitize_leaves_finite_gradients_alone():
    _, (gradients, *_) = problem(1)
    clean, count = sanitize(gradients)
    jax.tree.map(np.testing.assert_array_equal, clean, gradients)
    assert count == 0


@pytest.mark.parametrize(("value", "expected"), [(1.0, [-1, 0.5, 1]), (None, [-3, 0.5, 8])])
def test_clip(value, expected):
    np.testing.assert_array_equal(clip({"w": jnp.array([-3, 0.5, 8])}, value)["w"], expected)
