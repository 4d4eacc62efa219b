"""The training loop of pretraining."""

import jax
import jax.numpy as jnp
import numpy as np

from sid_jax.digits.fit import Schedule, fit


def loss(params, key, batch):
    noise = 0.01 * jax.random.normal(key, batch["y"].shape)
    return jnp.mean((params["w"] * batch["x"] + params["b"] - batch["y"] + noise) ** 2)


def line(seed=0):
    x = np.linspace(-1, 1, 64, dtype=np.float32)
    data = {"x": jnp.asarray(x), "y": jnp.asarray(3 * x + 1)}
    start = {"w": jnp.zeros(()), "b": jnp.zeros(())}
    return fit("line", loss, start, data, Schedule(steps=400, batch=16, learning_rate=0.05), seed=seed)


def test_fits_a_line():
    found = line()
    np.testing.assert_allclose([found["w"], found["b"]], [3, 1], atol=0.05)


def test_the_same_seed_gives_the_same_bits():
    assert line(1) == line(1)
    assert line(1) != line(2)
