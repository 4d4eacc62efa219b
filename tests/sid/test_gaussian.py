"""SiD on a Gaussian, where every score is known: it converges, and the loss that it replaces does not.

Data N(m, v) for each pixel, under a variance-preserving process, has E[x0 | x_t] = m + a v (x_t - a m) / (a^2 v + s^2).
The network below has this form with learnable m and v, so that the teacher is exact and the fake network can be.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import stable_diffusion

from sid_jax import sid

PROCESS = stable_diffusion()
TIMES = sid.Uniform()
BATCH, SHAPE = 128, (2, 2, 1)
MEAN, STD = 0.7, 0.5
BINS = 4


def to_x0(mean, variance, x_t, t):
    a, s = PROCESS.scale(t), PROCESS.sigma(t)
    return mean + a * variance * (x_t - a * mean) / (a**2 * variance + s**2)


def denoiser(params, x_t, t, cond, dropout_key=None):
    """eps prediction; each quarter of the times has an m and log v of its own, for the steps of a 4-step generator."""
    quarter = t * BINS // 1000
    mean, log_variance = (params[name][quarter][:, None, None, None] for name in ("mean", "log_variance"))
    each = t[:, None, None, None]
    x0 = to_x0(mean, jnp.exp(log_variance), x_t, each)
    return PROCESS.noise_of(x_t, t, x0)


def gaussian(mean, std):
    return {
        "mean": jnp.full(BINS, mean, jnp.float32),
        "log_variance": jnp.full(BINS, 2 * np.log(std), jnp.float32),
    }


@pytest.mark.parametrize(("num_steps", "t_init", "alpha"), [(1, 625, 1.0), (1, 625, 1.2), (4, 999, 1.0)])
def test_the_generator_learns_the_data(num_steps, t_init, alpha):
    """Mean and standard deviation of x_g, which start elsewhere, become the data's.

    With four steps they are those of the uniform mixture of the steps' outputs, which is what training matches to the
    data (section 4): a Gaussian fake network sees no more of it than these two numbers.
    """
    settings = sid.Settings(
        batch=BATCH,
        shape=SHAPE,
        loss=sid.Loss(alpha=alpha),
        optimizer=sid.Optimizer(fake_lr=1e-2, generator_lr=5e-3),
        ema=sid.Ema(half_life=BATCH * 200),
    )
    few_step = sid.FewStep(PROCESS, num_steps, t_init)
    step = sid.make_train_step(sid.Networks(denoiser), few_step, TIMES, settings)
    teacher = gaussian(MEAN, STD)
    batch = sid.Batch(fake=jnp.zeros((BATCH, 1)), generator=jnp.zeros((BATCH, 1)), empty=jnp.zeros((1, 1)))

    # Of so many updates this program takes less time where LLVM optimises it.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})
    def train(state):
        return jax.lax.fori_loop(0, 1500, lambda _, s: step(s, sid.Frozen(teacher), batch)[0], state)

    def moments(params):
        noise = sid.noise_from_key(jax.random.key(1), (16384, *SHAPE))
        network = functools.partial(denoiser, params)
        x_g = jnp.stack([few_step.first_evaluations(network, noise, None, n)[0] for n in range(1, num_steps + 1)])
        return np.array([x_g.mean(), x_g.std()])

    state = sid.TrainState.create(teacher)
    before = moments(state.ema)
    after = moments(train(state).ema)
    assert np.abs(before - [MEAN, STD]).max() > 0.1
    np.testing.assert_allclose(after, [MEAN, STD], atol=0.03)


def losses_of_affine_generator(name, theta, psi, z, noise, t):
    """L of x_g = mean + std z (theta), for data N(0, 1), and a fake network that is exact for the Gaussian psi.

    "naive" is L^(1) = |y_real - y_fake|^2, "projected" L^(2) = (y_real - y_fake)(y_real - x_g), "sid" the loss of this
    project, L^(2) - alpha L^(1) with alpha = 1. The weight w is 1 in all of them.
    """
    mean, std = theta
    x_g = mean + std * z
    x_t = PROCESS.corrupt(x_g, t, noise)
    each = t[:, None, None, None]
    y_real, y_fake = to_x0(0.0, 1.0, x_t, each), to_x0(psi[0], psi[1] ** 2, x_t, each)
    if name == "naive":
        return jnp.mean(jnp.square(y_real - y_fake))
    alpha = {"projected": 0.0, "sid": 1.0}[name]
    return jnp.mean(sid.sid_loss(x_g, y_real, y_fake, y_fake, 1.0, alpha))


@functools.partial(jax.jit, static_argnums=0)
def gradient(name, theta):
    """The gradient in theta = (mean, std) with psi = theta: a fake network that has converged. Antithetic draws."""
    keys = jax.random.split(jax.random.key(0), 3)
    z, noise = (jax.random.normal(key, (2000, 1, 1, 1)) for key in keys[:2])
    z, noise = jnp.concatenate([z, z, -z, -z]), jnp.concatenate([noise, -noise, noise, -noise])
    t = jnp.tile(TIMES.generator(keys[2], 2000), 4)
    return jax.grad(lambda th: losses_of_affine_generator(name, th, theta, z, noise, t))(theta)


class TestTheNaiveLossFails:
    """The failure case that motivates SiD's loss (arXiv 2404.04057, section 4, Proposition 4), derived here.

    The loss to minimise is the distance of two scores, E|y_real - y_fake|^2 with y_fake = f_psi*(theta), the best fake
    network for the current theta. The naive approximation L^(1) puts a trained psi in the place of psi*(theta) and
    differentiates as if psi did not depend on theta. Its value is right. Its gradient is not:

    Data N(0, 1), generator x_g = mu + sigma z, psi = (mu', sigma'), and a^2 + s^2 = 1.
    - sigma = sigma' = 1: y_real - y_fake = a x_t - (a x_t + s^2 mu') = -s^2 mu' does not contain x_t. L^(1) = s^4 mu'^2
      is constant in theta and its gradient is zero for every mu, although at mu' = mu the true loss is s^4 mu^2.
      L^(2) = (y_real - y_fake)(y_real - x_g) = -s^2 mu' (a x_t - x_g) has the gradient s^4 mu': towards the data.
    - mu = mu' = 0: y_real - y_fake = c x_t with c = a s^2 (1 - sigma'^2) / (a^2 sigma'^2 + s^2). L^(1) is
      c^2 (a^2 sigma^2 + s^2), whose gradient 2 c^2 a^2 sigma is never negative: the variance shrinks, also when it is
      too small already.
      L^(2) = c sigma^2 (a^3 - a) + const has the gradient -2 c a s^2 sigma: positive for sigma > 1, negative for
      sigma < 1. That of alpha = 1 has the same sign: its factor s^2 + c a is s^2 / (a^2 sigma^2 + s^2) at psi = theta.

    The paper's text was not at hand when this was written: statement and constants are derived above, not quoted.
    """

    @pytest.mark.parametrize("mean", [-2.0, 0.5, 3.0])
    def test_no_gradient_for_the_mean(self, mean):
        theta = jnp.array([mean, 1.0])
        s4 = float(jnp.mean(PROCESS.sigma(jnp.arange(20, 980)) ** 4))
        assert abs(gradient("naive", theta)[0]) < 1e-3 * abs(mean)
        for name in ("projected", "sid"):
            assert float(gradient(name, theta)[0]) == pytest.approx(s4 * mean, rel=0.02)

    @pytest.mark.parametrize("std", [0.3, 0.8, 1.3, 2.5])
    def test_the_wrong_gradient_for_the_variance(self, std):
        theta = jnp.array([0.0, std])
        assert gradient("naive", theta)[1] > 0
        for name in ("projected", "sid"):
            assert np.sign(gradient(name, theta)[1]) == np.sign(std - 1)

    def test_descent(self):
        """From one start, with a fake network that has converged at each step: to the data, and away from them."""
        start, data = np.array([1.5, 0.6]), np.array([0.0, 1.0])

        @functools.partial(jax.jit, static_argnums=0)
        def descend(name):
            return jax.lax.fori_loop(0, 200, lambda _, theta: theta - 0.3 * gradient(name, theta), jnp.asarray(start))

        for name in ("projected", "sid"):
            np.testing.assert_allclose(descend(name), data, atol=0.05)
        assert np.linalg.norm(descend("naive") - data) > np.linalg.norm(start - data)
