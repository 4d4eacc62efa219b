"""Adam with one moment against optax and PyTorch; the clean-up and limits of gradients; the warm-up."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from sid_jax.sid import adam, clip, clip_norm, sanitize, warmed_up

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


@pytest.mark.parametrize("largest", [0.7, 1e6])
def test_clip_norm_equals_torch(largest):
    """Over all tensors together; gradients whose norm is smaller stay as they are."""
    _, (gradients, *_) = problem(1)
    theirs = [torch.nn.Parameter(torch.zeros(g.shape)) for g in gradients.values()]
    for p, g in zip(theirs, gradients.values(), strict=True):
        p.grad = torch.tensor(g)
    torch.nn.utils.clip_grad_norm_(theirs, largest)
    ours = clip_norm(gradients, largest)
    for name, p in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(ours[name], p.grad, rtol=1e-5)
    assert (largest > 1) == all(np.array_equal(ours[name], g) for name, g in gradients.items())


def test_without_a_limit_gradients_are_what_they_were():
    assert clip_norm(gradients := object(), None) is gradients


def test_warm_up():
    """Linear from the first update on, which is no update of zero; then the rate itself, to the bit."""
    rates = [float(warmed_up(0.3, 2.5, jnp.int32(count))) for count in (1, 2, 3, 4, 1000)]
    np.testing.assert_allclose(rates, [0.3 / 2.5, 0.6 / 2.5, 0.3, 0.3, 0.3], rtol=1e-6)
    assert rates[2:] == [float(np.float32(0.3))] * 3
    assert warmed_up(0.3, 0, jnp.int32(1)) == 0.3 and isinstance(warmed_up(0.3, 0, jnp.int32(1)), float)


ON_8_DEVICES = """
import jax
import numpy as np

from sid_jax.runtime.devices import mesh as meshes
from sid_jax.sid import clip_norm

meshes.SMALL = 1
mesh = meshes.make_mesh(data=2, fsdp=4)
rng = np.random.default_rng(0)
gradients = {"w": rng.normal(size=(16, 24)).astype(np.float32), "b": rng.normal(size=5).astype(np.float32)}
shardings = meshes.parameter_shardings(gradients, mesh)
placed = meshes.place(gradients, shardings)
assert len(placed["w"].sharding.device_set) == 8 and placed["w"].addressable_shards[0].data.size == 16 * 24 / 4
clipped = jax.jit(lambda g: clip_norm(g, 0.5), out_shardings=shardings)(placed)
norm = np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in gradients.values()))
for name, value in gradients.items():
    np.testing.assert_allclose(clipped[name], value * 0.5 / norm, rtol=1e-5)
"""


@pytest.mark.slow
def test_the_norm_is_that_of_all_shards(eight_devices):
    eight_devices(ON_8_DEVICES)
