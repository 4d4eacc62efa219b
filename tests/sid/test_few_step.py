"""The few-step generator: its steps, its noise, and the loop that runs the first of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from sid_jax.sid import VP, FewStep, generate, noise_from_array, noise_from_key

CONFIG = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
PROCESS = VP.from_scheduler(CONFIG)
SHAPE = (2, 4, 4, 3)
K, T_INIT = 4, 999
COND = np.array([0.1, -0.2], np.float32)


def network(x_t, t, cond):
    return x_t * 0.9 + jnp.tanh(x_t + cond[:, None, None, None]) * t[:, None, None, None] / 5000


def by_hand(noises, n, noise_type):
    """Section 4 of the method, line by line."""
    abar = np.asarray(PROCESS.alphas_cumprod)
    x = np.zeros(SHAPE)
    implied = None
    for k in range(n):
        t = (999, 749, 499, 249)[k]
        a, s = np.sqrt(abar[t]), np.sqrt(1 - abar[t])
        z = noises[0] if k == 0 or noise_type == "fixed" else noises[k] if noise_type == "fresh" else implied
        x_t = a * x + s * z
        x = (x_t - s * np.asarray(network(x_t, np.full(2, t), COND))) / a
        implied = (x_t - a * x) / s
    return x


@pytest.mark.parametrize("noise_type", ["fresh", "fixed", "ddim"])
def test_every_number_of_steps(noise_type):
    few_step = FewStep(PROCESS, K, T_INIT, noise_type)
    noises = np.random.default_rng(0).normal(size=(K, *SHAPE)).astype(np.float32)
    run = jax.jit(lambda n: few_step.first_evaluations(network, noise_from_array(noises), COND, n)[0])
    for n in range(K + 1):
        np.testing.assert_allclose(run(n), by_hand(noises, n, noise_type), rtol=1e-4, atol=1e-4)
    sample = generate(
        network, PROCESS, noise_from_array(noises), COND, num_steps=K, t_init=T_INIT, noise_type=noise_type
    )
    np.testing.assert_allclose(sample, run(K), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("noise_type", ["fresh", "fixed", "ddim"])
def test_the_last_evaluation_continues_the_loop(noise_type):
    """Training splits what sampling does in one go: n - 1 evaluations without a gradient, then the n-th."""
    few_step = FewStep(PROCESS, K, T_INIT, noise_type)
    noises = np.random.default_rng(1).normal(size=(K, *SHAPE)).astype(np.float32)

    @jax.jit
    def split(n):
        noise = noise_from_array(noises)
        before = few_step.first_evaluations(network, noise, COND, n - 1)
        return few_step.evaluate(network, noise, COND, n - 1, *before)[0]

    for n in range(1, K + 1):
        np.testing.assert_allclose(split(n), by_hand(noises, n, noise_type), rtol=1e-4, atol=1e-4)


def test_keys_and_arrays_give_the_same_noise():
    key = jax.random.key(7)
    drawn = noise_from_key(key, SHAPE)
    noises = jnp.stack([jax.random.normal(jax.random.fold_in(key, k), SHAPE) for k in range(K)])
    for k in range(K):
        np.testing.assert_array_equal(drawn(k), noise_from_array(noises)(k))
    samples = [
        generate(network, PROCESS, noise, COND, num_steps=K, t_init=T_INIT)
        for noise in (drawn, noise_from_array(noises))
    ]
    np.testing.assert_allclose(*samples, rtol=1e-4, atol=1e-6)


def test_the_first_input_is_scaled_noise():
    """x is zero before the first step, so that the network sees s(t_init) z_0 and not unit noise."""
    seen = []

    def spy(x_t, t, cond):
        seen.append((x_t, t))
        return x_t

    noises = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    generate(spy, PROCESS, noise_from_array(noises), COND, num_steps=1, t_init=625)
    ((x_t, t),) = seen
    np.testing.assert_allclose(x_t, PROCESS.sigma(625) * noises[0], rtol=1e-6)
    assert list(t) == [625, 625]


def test_ddim_noise_is_the_ddim_sampler():
    """With implied noise, K steps are those of diffusers' DDIM (eta = 0) at the same times."""
    noise = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    scheduler = DDIMScheduler(**CONFIG, clip_sample=False)
    scheduler.set_timesteps(K)
    scheduler.timesteps = torch.tensor([999, 749, 499, 249])
    x_t = torch.tensor(noise * np.asarray(PROCESS.sigma(999)))
    for t in scheduler.timesteps:
        output = torch.tensor(np.asarray(network(x_t.numpy(), np.full(2, int(t)), COND)))
        step = scheduler.step(output, int(t), x_t)
        x_t = step.prev_sample
    x_g = generate(network, PROCESS, noise_from_array(noise[None]), COND, num_steps=K, t_init=999, noise_type="ddim")
    np.testing.assert_allclose(x_g, step.pred_original_sample, rtol=1e-3, atol=1e-3)


def test_no_loop_for_one_step_and_a_dynamic_one_for_more():
    def program(num_steps, count):
        few_step = FewStep(PROCESS, num_steps, T_INIT)
        noise = noise_from_key(jax.random.key(0), SHAPE)
        return str(jax.make_jaxpr(lambda n: few_step.first_evaluations(network, noise, COND, n)[0])(count))

    one = FewStep(PROCESS, 1, T_INIT)
    text = str(jax.make_jaxpr(lambda z: one.generate(network, noise_from_array(z), COND))(np.zeros((1, *SHAPE))))
    assert "while" not in text and "scan" not in text
    assert "while" in program(K, 3)


def test_unknown_noise():
    with pytest.raises(ValueError, match=r"sid\.noise: 'new' is not one of fresh, fixed, ddim"):
        FewStep(PROCESS, 1, 625, "new")
