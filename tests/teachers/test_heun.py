"""Heun's sampler against the same in plain NumPy, with given noise."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sid_jax.errors import UserError
from sid_jax.sid import Condition, noise_from_array
from sid_jax.teachers.samplers.heun import Churn, Heun

SHAPE = (2, 4, 4, 3)
NONE = Churn()
PUBLISHED = Churn(40, 0.05, 50, 1.003)


def denoised(x, sigma, module):
    """An arbitrary smooth denoiser, of arrays of either library."""
    return x / (1 + sigma**2) + 0.1 * module.sin(3 * x) * sigma / (1 + sigma)


def plain(z, steps, churn=NONE, sigma_min=0.002, sigma_max=80.0, levels=None):
    """Algorithm 2 of EDM's paper in float64; z[0] is where it starts from, z[i + 1] what step i adds of."""

    def nearest(t):
        return t if levels is None or t == 0 else levels[np.argmin(np.abs(levels - t))]

    i = np.arange(steps)
    times = (sigma_max ** (1 / 7) + i / max(steps - 1, 1) * (sigma_min ** (1 / 7) - sigma_max ** (1 / 7))) ** 7
    times = [nearest(t) for t in times] + [0.0]
    x, evaluations = z[0] * times[0], 0
    for i, (t, following) in enumerate(itertools.pairwise(times)):
        gamma = min(churn.amount / steps, math.sqrt(2) - 1) if churn.low <= t <= churn.high else 0
        raised = nearest(t + gamma * t)
        x = x + np.sqrt(max(raised**2 - t**2, 0)) * churn.scale * z[i + 1]
        d = (x - denoised(x, raised, np)) / raised
        to = x + (following - raised) * d
        evaluations += 1
        if i < steps - 1:
            d = (d + (to - denoised(to, following, np)) / following) / 2
            to = x + (following - raised) * d
            evaluations += 1
        x = to
    assert evaluations == 2 * steps - 1
    return x


@pytest.mark.parametrize(
    ("sampler", "more"),
    [
        (Heun(18), {}),
        (Heun(1), {}),
        (Heun(2), {}),
        (Heun(40, churn=PUBLISHED), {"churn": PUBLISHED}),
        (Heun(9, churn=Churn(100)), {"churn": Churn(100)}),
        (Heun(7, sigma_min=0.02, sigma_max=100), {"sigma_min": 0.02, "sigma_max": 100}),
        (Heun(7, levels=(90.0, 30.0, 7.0, 1.0, 0.5, 0.1, 0.01)), {"levels": np.array([90, 30, 7, 1, 0.5, 0.1, 0.01])}),
    ],
)
def test_it_is_the_published_algorithm(sampler, more):
    z = np.random.default_rng(0).normal(size=(sampler.num_steps + 1, *SHAPE)).astype(np.float32)

    def denoiser(x, t, cond):
        assert cond == "labels" and t.shape == (2,)
        return denoised(x, t[:, None, None, None], jnp)

    found = sampler.generate(denoiser, noise_from_array(z), Condition("labels", None))
    np.testing.assert_allclose(found, plain(z.astype(np.float64), sampler.num_steps, **more), rtol=2e-4, atol=2e-4)


def test_published_noise_levels():
    times = Heun(18).times
    assert len(times) == 19 and times[-1] == 0
    np.testing.assert_allclose([times[0], times[17]], [80, 0.002], rtol=1e-12)
    raised = Heun(256, churn=PUBLISHED).raised_times
    ratio = np.array(raised) / np.array(Heun(256).times[:-1])
    inside = [0.05 <= t <= 50 for t in Heun(256).times[:-1]]
    np.testing.assert_allclose(ratio, np.where(inside, 1 + 40 / 256, 1), rtol=1e-12)


def test_the_network_is_in_the_program_once():
    def count(sampler):
        calls = []

        def denoiser(x, t, cond):
            calls.append(1)
            return x

        jax.make_jaxpr(lambda z: sampler.generate(denoiser, lambda k: z, Condition(None, None)))(np.zeros(SHAPE))
        return len(calls)

    assert count(Heun(18, churn=PUBLISHED)) == count(Heun(2)) == 1


def test_a_number_of_steps_that_it_has_not():
    with pytest.raises(UserError, match="1 or more steps, not 0"):
        Heun(0)
