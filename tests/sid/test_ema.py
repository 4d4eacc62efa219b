"""The moving average and its half-life."""

import jax.numpy as jnp
import numpy as np
import pytest

from sid_jax.sid import ema_beta, ema_update


@pytest.mark.parametrize("images_seen", [0, 512, 10_000, 999_999, 1_000_000, 5_000_000_000])
def test_beta_is_that_of_the_reference(images_seen):
    half_life_now = min(50_000, images_seen * 0.05)
    expected = 0.5 ** (512 / max(half_life_now, 1e-8))
    beta = ema_beta(50_000, 0.05, np.float32(images_seen), 512)
    assert beta.dtype == jnp.float32
    assert float(beta) == pytest.approx(expected, rel=1e-5, abs=1e-30)


def test_half_life():
    """After half_life images, half of the old value is left."""
    average = jnp.float32(1.0)
    for _ in range(100):
        average = ema_update(average, jnp.float32(0.0), ema_beta(3200, None, 0, 32))
    assert float(average) == pytest.approx(0.5, rel=1e-4)


def test_the_first_average_is_the_generator():
    params = {"w": jnp.array([0.1, -3e7, 1e-20])}
    average = ema_update({"w": jnp.array([5.0, 1.0, 2.0])}, params, ema_beta(50_000, 0.05, jnp.int32(0), 512))
    np.testing.assert_array_equal(average["w"], params["w"])
