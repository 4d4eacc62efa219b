"""The VP process against diffusers' schedulers, its published defaults, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from processes import STABLE_DIFFUSION, RectifiedFlow, stable_diffusion

from sid_jax.sid import EDM, VP, FewStep

PROCESS = stable_diffusion()


def fake_error(process, output, x0, t, noise):
    """What the fake network's loss sums over pixels."""
    weight = process.fake_weight(jnp.asarray(t))[:, None, None, None]
    return weight * np.square(output - process.fake_target(x0, t, noise))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_conversions(prediction_type):
    process = stable_diffusion(prediction_type)
    scheduler = DDPMScheduler(**STABLE_DIFFUSION, prediction_type=prediction_type, clip_sample=False)
    rng = np.random.default_rng(0)
    x0, noise, output = rng.normal(size=(3, 5, 4, 6, 2)).astype(np.float32)
    t = np.array([20, 100, 500, 700, 979])

    x_t = process.corrupt(x0, t, noise)
    expected = scheduler.add_noise(torch.tensor(x0), torch.tensor(noise), torch.tensor(t))
    np.testing.assert_allclose(x_t, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(process.noise_of(x_t, t, x0), noise, rtol=1e-3, atol=1e-4)

    prediction = process.to_x0(x_t, t, output)
    for i, time in enumerate(t):
        step = scheduler.step(torch.tensor(output[i]), int(time), torch.tensor(np.asarray(x_t[i])))
        np.testing.assert_allclose(prediction[i], step.pred_original_sample, rtol=1e-4, atol=1e-5)


def test_a_perfect_network_has_no_error():
    rng = np.random.default_rng(0)
    x0, noise = rng.normal(size=(2, 3, 4, 4, 2)).astype(np.float32)
    t = np.array([20, 500, 979])
    eps, v = stable_diffusion("epsilon"), stable_diffusion("v_prediction")
    scheduler = DDPMScheduler(**STABLE_DIFFUSION)
    velocity = scheduler.get_velocity(torch.tensor(x0), torch.tensor(noise), torch.tensor(t)).numpy()
    for process, output in ((eps, noise), (v, velocity)):
        np.testing.assert_allclose(fake_error(process, output, x0, t, noise), 0, atol=1e-10)
        x_t = process.corrupt(x0, t, noise)
        np.testing.assert_allclose(process.to_x0(x_t, t, output), x0, atol=1e-5)
    abar = np.asarray(eps.alphas_cumprod)[t][:, None, None, None]
    snr = abar / (1 - abar)
    np.testing.assert_allclose(
        fake_error(v, velocity + 2, x0, t, noise), np.broadcast_to(4 * snr / (snr + 1), x0.shape), rtol=1e-5
    )


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_target_and_weight_of_the_fake_network(prediction_type):
    """eps: (e_hat - e)^2. v: (v_hat - v)^2 snr / (snr + 1), v = a e - s x0 (section 2 of the method)."""
    process = stable_diffusion(prediction_type)
    rng = np.random.default_rng(1)
    x0, noise, output = rng.normal(size=(3, 4, 4, 6, 2))
    t = np.array([0, 20, 625, 999])
    abar = np.asarray(process.alphas_cumprod)[t][:, None, None, None]
    if prediction_type == "epsilon":
        expected = (output - noise) ** 2
    else:
        snr = abar / (1 - abar)
        expected = (output - (np.sqrt(abar) * noise - np.sqrt(1 - abar) * x0)) ** 2 * snr / (snr + 1)
    x0, noise, output = (value.astype(np.float32) for value in (x0, noise, output))
    np.testing.assert_allclose(fake_error(process, output, x0, t, noise), expected, rtol=1e-3, atol=1e-5)
    weight, target = process.fake_weight(jnp.asarray(t)), process.fake_target(x0, t, noise)
    assert weight.dtype == target.dtype == jnp.float32 and weight.shape == (4,)
    np.testing.assert_allclose(weight, 1 if prediction_type == "epsilon" else abar[:, 0, 0, 0], rtol=1e-6)


def test_the_network_is_told_the_time_itself():
    t = jnp.arange(4)
    assert PROCESS.network_time(t) is t


@pytest.mark.parametrize(
    ("t_init", "num_steps", "expected"),
    [(625, 1, (625,)), (999, 4, (999, 749, 499, 249)), (999, 3, (999, 666, 333)), (625, 2, (625, 312)), (1, 1, (1,))],
)
def test_step_times(t_init, num_steps, expected):
    assert PROCESS.step_times(t_init, num_steps) == expected


@pytest.mark.parametrize(
    ("times", "num_steps", "expected"), [(1000, 1, 625), (1000, 4, 999), (500, 1, 312), (500, 4, 499)]
)
def test_default_start(times, num_steps, expected):
    """625 of 1000 for one step, the last time for several; the generator of so many steps begins there."""
    process = stable_diffusion(times=times)
    start = process.default_start(num_steps)
    assert type(start) is int and start == expected
    few_step = FewStep(process, num_steps, start)
    assert few_step.times[0] == expected and len(set(few_step.times)) == num_steps


@pytest.mark.parametrize("times", [(-1, 10), (10, 10), (0, 1001), (0.5, 10), (0, 10.0)])
def test_times_outside_the_process(times):
    with pytest.raises(ValueError, match=r"^some\.key: 0 <= t_min < t_max <= 1000 is needed, not "):
        PROCESS.check_range("some.key", *times)
    PROCESS.check_range("some.key", 0, 1000)


@pytest.mark.parametrize(
    ("t_init", "num_steps", "key"),
    [(1000, 1, "t_init"), (-1, 1, "t_init"), (0.5, 1, "t_init"), (5, 6, "num_steps"), (5, 0, "num_steps")],
)
def test_steps_outside_the_process(t_init, num_steps, key):
    with pytest.raises(ValueError, match=rf"sid\.{key}"):
        PROCESS.step_times(t_init, num_steps)


def test_unknown_prediction_type():
    with pytest.raises(ValueError, match=r"^prediction_type: 'sample' is not one of epsilon, v_prediction"):
        VP(PROCESS.alphas_cumprod, "sample")


@pytest.mark.parametrize("abar", [(), (0.5, 0.0), (1.0,), (float("nan"),)])
def test_signal_outside_the_open_interval(abar):
    with pytest.raises(ValueError, match="alphas_cumprod"):
        VP(abar)


def test_what_every_process_has_of_scale_and_sigma():
    """x_t = a x0 + s e and its inverse in e, here of a process with float32 times."""
    rng = np.random.default_rng(2)
    x0, noise = rng.normal(size=(2, 3, 4, 4, 2)).astype(np.float32)
    t = jnp.array([0.1, 0.5, 1.0])
    x_t = jax.jit(RectifiedFlow().corrupt)(x0, t, noise)
    each = np.asarray(t)[:, None, None, None]
    np.testing.assert_allclose(x_t, (1 - each) * x0 + each * noise, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(RectifiedFlow().noise_of(x_t, t, x0), noise, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(RectifiedFlow().to_x0(x_t, t, noise - x0), x0, rtol=1e-5, atol=1e-6)


def test_times_of_edm_are_noise_levels():
    """x_t = x0 + t e; an output is the image itself; omega is 1 / c_out^2 of EDM's preconditioning."""
    rng = np.random.default_rng(3)
    x0, noise, output = rng.normal(size=(3, 3, 4, 4, 2)).astype(np.float32)
    t = jnp.array([0.002, 0.5, 80.0])
    each = np.asarray(t)[:, None, None, None]
    x_t = EDM().corrupt(x0, t, noise)
    np.testing.assert_allclose(x_t, x0 + each * noise, rtol=1e-6)
    np.testing.assert_array_equal(EDM().to_x0(x_t, t, output), output)
    np.testing.assert_array_equal(EDM().fake_target(x0, t, noise), x0)
    c_out = np.asarray(t) * 0.5 / np.sqrt(np.asarray(t) ** 2 + 0.25)
    np.testing.assert_allclose(EDM().fake_weight(t), 1 / c_out**2, rtol=1e-5)
    np.testing.assert_array_equal(EDM().network_time(jnp.array([2, 3])), np.float32([2, 3]))


def test_edm_starts_at_its_sigma_init():
    assert EDM().default_start(1) == EDM().default_start(4) == 2.5
    assert EDM().step_times(2.5, 1) == (2.5,)
    times = EDM().step_times(2.5, 4)
    roots = np.linspace(2.5 ** (1 / 7), 0.002 ** (1 / 7), 5)[:4]
    np.testing.assert_allclose(times, roots**7, rtol=1e-12)
    few_step = FewStep(EDM(), 1, 2.5)
    z = jnp.ones((1, 2, 2, 3))
    seen = few_step.evaluate(lambda x_t, t, cond: x_t * t[0], lambda k: z, None, 0, jnp.zeros_like(z), z)[0]
    np.testing.assert_allclose(seen, 2.5 * 2.5 * z)


@pytest.mark.parametrize("times", [(0.001, 1.0), (1.0, 1.0), (0.5, 81.0)])
def test_times_outside_edm(times):
    with pytest.raises(ValueError, match=r"^some\.key: 0\.002 <= min < max <= 80\.0 is needed, not "):
        EDM().check_range("some.key", *times)
    EDM().check_range("some.key", 0.002, 80.0)


@pytest.mark.parametrize(
    ("start", "num_steps", "key"),
    [(0.001, 1, "t_init"), (81.0, 1, "t_init"), (2.5, 0, "num_steps"), (0.002, 2, "num_steps")],
)
def test_steps_outside_edm(start, num_steps, key):
    with pytest.raises(ValueError, match=rf"^sid\.{key}"):
        EDM().step_times(start, num_steps)


@pytest.mark.parametrize(
    "numbers", [{"sigma_min": 0.0}, {"sigma_min": 90.0}, {"rho": 0.0}, {"sigma_data": float("nan")}]
)
def test_no_process_of_edm(numbers):
    with pytest.raises(ValueError, match=next(iter(numbers))):
        EDM(**numbers)
