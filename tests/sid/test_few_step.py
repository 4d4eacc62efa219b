"""The few-step generator: its steps, its noise, and the loop that runs the first of them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from processes import STABLE_DIFFUSION, RectifiedFlow, stable_diffusion

from sid_jax.sid import Condition, FewStep, noise_from_array, noise_from_key

PROCESS = stable_diffusion()
SHAPE = (2, 4, 4, 3)
K, START = 4, 999
COND = np.array([0.1, -0.2], np.float32)
CONDITION = Condition(COND, None)


def network(x_t, t, cond):
    return x_t * 0.9 + jnp.tanh(x_t + cond[:, None, None, None]) * t[:, None, None, None] / 5000


def by_hand(noises, n, noise_type, first="scaled"):
    """Section 4 of the method, line by line; with "unit", the first input is z_0 itself."""
    abar = np.asarray(PROCESS.alphas_cumprod)
    x = np.zeros(SHAPE)
    implied = None
    for k in range(n):
        t = (999, 749, 499, 249)[k]
        a, s = np.sqrt(abar[t]), np.sqrt(1 - abar[t])
        z = noises[0] if k == 0 or noise_type == "fixed" else noises[k] if noise_type == "fresh" else implied
        x_t = z if k == 0 and first == "unit" else a * x + s * z
        x = (x_t - s * np.asarray(network(x_t, np.full(2, t), COND))) / a
        implied = (x_t - a * x) / s
    return x


@pytest.mark.parametrize("first", ["scaled", "unit"])
@pytest.mark.parametrize("noise_type", ["fresh", "fixed", "ddim"])
def test_every_number_of_steps(noise_type, first):
    few_step = FewStep(PROCESS, K, START, noise_type, first)
    noises = np.random.default_rng(0).normal(size=(K, *SHAPE)).astype(np.float32)
    run = jax.jit(lambda n: few_step.first_evaluations(network, noise_from_array(noises), COND, n)[0])
    for n in range(K + 1):
        np.testing.assert_allclose(run(n), by_hand(noises, n, noise_type, first), rtol=1e-4, atol=1e-4)
    sample = few_step.generate(network, noise_from_array(noises), CONDITION)
    np.testing.assert_allclose(sample, run(K), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("first", ["scaled", "unit"])
@pytest.mark.parametrize("noise_type", ["fresh", "fixed", "ddim"])
def test_the_last_evaluation_continues_the_loop(noise_type, first):
    """Training splits what sampling does in one go: n - 1 evaluations without a gradient, then the n-th."""
    few_step = FewStep(PROCESS, K, START, noise_type, first)
    noises = np.random.default_rng(1).normal(size=(K, *SHAPE)).astype(np.float32)

    @jax.jit
    def split(n):
        noise = noise_from_array(noises)
        before = few_step.first_evaluations(network, noise, COND, n - 1)
        return few_step.evaluate(network, noise, COND, n - 1, *before)[0]

    for n in range(1, K + 1):
        np.testing.assert_allclose(split(n), by_hand(noises, n, noise_type, first), rtol=1e-4, atol=1e-4)


def test_keys_and_arrays_give_the_same_noise():
    key = jax.random.key(7)
    drawn = noise_from_key(key, SHAPE)
    noises = jnp.stack([jax.random.normal(jax.random.fold_in(key, k), SHAPE) for k in range(K)])
    for k in range(K):
        np.testing.assert_array_equal(drawn(k), noise_from_array(noises)(k))
    samples = [
        FewStep(PROCESS, K, START).generate(network, noise, CONDITION) for noise in (drawn, noise_from_array(noises))
    ]
    np.testing.assert_allclose(*samples, rtol=1e-4, atol=1e-6)


def test_the_first_input_is_scaled_noise():
    """x is zero before the first step, so that the network sees s(t_0) z_0 and not unit noise."""
    seen = []

    def spy(x_t, t, cond):
        seen.append((x_t, t))
        return x_t

    noises = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    FewStep(PROCESS, 1, 625).generate(spy, noise_from_array(noises), CONDITION)
    ((x_t, t),) = seen
    np.testing.assert_allclose(x_t, PROCESS.sigma(625) * noises[0], rtol=1e-6)
    assert list(t) == [625, 625]


def inputs_of(few_step, noises):
    """What the network is given in a sample's evaluations, (x_t, t) of each, and what it answers."""
    seen = []

    def spy(x_t, t, cond):
        seen.append((np.asarray(x_t), np.asarray(t), np.asarray(network(x_t, t, cond))))
        return seen[-1][-1]

    with jax.disable_jit():
        few_step.generate(spy, noise_from_array(noises), CONDITION)
    return seen


@pytest.mark.parametrize("noise_type", ["fresh", "fixed", "ddim"])
@pytest.mark.parametrize("num_steps", [1, 4])
def test_the_first_input_is_unit_noise(num_steps, noise_type):
    """With "unit" it is z_0 itself, to the bit; every later input is made as ever of the output before it."""
    few_step = FewStep(PROCESS, num_steps, START, noise_type, first="unit")
    noises = np.random.default_rng(0).normal(size=(num_steps, *SHAPE)).astype(np.float32)
    seen = inputs_of(few_step, noises)
    assert len(seen) == num_steps
    np.testing.assert_array_equal(seen[0][0], noises[0])
    assert [tuple(t) for _, t, _ in seen] == [(t, t) for t in few_step.times]
    for k, ((before, t_before, output), (x_t, t, _)) in enumerate(itertools.pairwise(seen), 1):
        x = PROCESS.to_x0(before, t_before, output)
        z = {"fresh": noises[k], "fixed": noises[0], "ddim": PROCESS.noise_of(before, t_before, x)}[noise_type]
        np.testing.assert_allclose(x_t, PROCESS.corrupt(x, t, z), rtol=1e-5, atol=1e-5)


def test_the_first_input_is_all_that_unit_noise_changes():
    """A network that answers the two first inputs alike is given the same from then on."""
    noises = np.random.default_rng(0).normal(size=(K, *SHAPE)).astype(np.float32)
    samples = []
    for first in ("scaled", "unit"):

        def constant_x0_first(x_t, t, cond):
            a, s = (np.asarray(f(t))[:, None, None, None] for f in (PROCESS.scale, PROCESS.sigma))
            of_x0 = (x_t - a * cond[:, None, None, None]) / s
            return jnp.where(t[:, None, None, None] == START, of_x0, network(x_t, t, cond))

        few_step = FewStep(PROCESS, K, START, first=first)
        with jax.disable_jit():
            samples.append(few_step.generate(constant_x0_first, noise_from_array(noises), CONDITION))
    np.testing.assert_allclose(*samples, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("first", ["scaled", "unit"])
def test_times_that_are_no_integers(first):
    """The loop passes a process's own times on: here float32, from which rectified flow's x0 is made."""
    few_step = FewStep(RectifiedFlow(), K, 1.0, first=first)
    assert few_step.times == (1.0, 0.75, 0.5, 0.25)
    noises = np.random.default_rng(0).normal(size=(K, *SHAPE)).astype(np.float32)
    x = np.zeros(SHAPE)
    for t, z, (x_t, times, output) in zip(few_step.times, noises, inputs_of(few_step, noises), strict=True):
        assert times.dtype == np.float32 and list(times) == [t, t]
        np.testing.assert_allclose(x_t, (1 - t) * x + t * z, rtol=1e-5, atol=1e-6)
        x = x_t - t * output


def test_ddim_noise_is_the_ddim_sampler():
    """With implied noise, K steps are those of diffusers' DDIM (eta = 0) at the same times."""
    noise = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    scheduler = DDIMScheduler(**STABLE_DIFFUSION, clip_sample=False)
    scheduler.set_timesteps(K)
    scheduler.timesteps = torch.tensor([999, 749, 499, 249])
    x_t = torch.tensor(noise * np.asarray(PROCESS.sigma(999)))
    for t in scheduler.timesteps:
        output = torch.tensor(np.asarray(network(x_t.numpy(), np.full(2, int(t)), COND)))
        step = scheduler.step(output, int(t), x_t)
        x_t = step.prev_sample
    x_g = FewStep(PROCESS, K, 999, "ddim").generate(network, noise_from_array(noise[None]), CONDITION)
    np.testing.assert_allclose(x_g, step.pred_original_sample, rtol=1e-3, atol=1e-3)


def test_no_loop_for_one_step_and_a_dynamic_one_for_more():
    def program(num_steps, count):
        few_step = FewStep(PROCESS, num_steps, START)
        noise = noise_from_key(jax.random.key(0), SHAPE)
        return str(jax.make_jaxpr(lambda n: few_step.first_evaluations(network, noise, COND, n)[0])(count))

    one = FewStep(PROCESS, 1, START)
    text = str(jax.make_jaxpr(lambda z: one.generate(network, noise_from_array(z), CONDITION))(np.zeros((1, *SHAPE))))
    assert "while" not in text and "scan" not in text
    assert "while" in program(K, 3)


def test_unknown_noise():
    with pytest.raises(ValueError, match=r"sid\.noise: 'new' is not one of fresh, fixed, ddim"):
        FewStep(PROCESS, 1, 625, "new")


def test_unknown_first_input():
    with pytest.raises(ValueError, match=r"sid\.first: 'zero' is not one of scaled, unit"):
        FewStep(PROCESS, 1, 625, first="zero")
