"""The real train step against plain PyTorch: the losses of both updates and the gradients of both networks.

The draws of the JAX step are repeated from the keys that `keys.py` documents, and handed to the reference.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_network
import torch
from processes import STABLE_DIFFUSION, stable_diffusion
from repeated_draws import at_update, draws_of, gradients, n_of
from torch_reference import Net, Reference

from sid_jax import sid

BATCH, SIZE = 4, 4
SHAPE = (SIZE, SIZE, tiny_network.CHANNELS)
TIMES = sid.Uniform()
OPTIMIZER = sid.Optimizer(fake_lr=1e-2, generator_lr=1e-2, eps=1.0)
PRESETS = {
    "none": sid.preset("none"),
    "lsg": sid.preset("lsg", 1.5),
    "zero_cfg": sid.preset("zero_cfg"),
    "anti_cfg": sid.preset("anti_cfg"),
    "all_different": sid.Guidance(1.0, 0.0, 2.0, 3.5, prompt_dropout=0.5),
}
WEIGHTINGS = ("snr", "snr_sqrt", "1_over_sigma", "1_over_sigma2", "1_minus_sigma", "1_minus_sigma_squared")


def settings_of(alpha=1.0, weighting="sid", **changes) -> sid.Settings:
    loss = sid.Loss(alpha, weighting, loss_scale=100.0)
    return dataclasses.replace(
        sid.Settings(batch=BATCH, shape=SHAPE, seed=3, loss=loss, optimizer=OPTIMIZER), **changes
    )


def setting(prediction_type: str, settings: sid.Settings, few_step: sid.FewStep):
    """Three networks, data, and the reference: (params, table, tokens, real latents, reference)."""
    params = [tiny_network.init(seed) for seed in range(3)]
    table = tiny_network.init_text(9)
    rng = np.random.default_rng(5)
    tokens = {
        name: rng.integers(0, tiny_network.VOCABULARY, (settings.batch, tiny_network.LENGTH))
        for name in ("fake", "generator", "real")
    }
    real = rng.normal(size=(settings.batch, *SHAPE)).astype(np.float32)
    tokens["empty"] = np.zeros((1, tiny_network.LENGTH), int)

    names = ("kappa1", "kappa2", "kappa3", "kappa4", "drop_before_generator")
    reference = Reference(
        STABLE_DIFFUSION | {"prediction_type": prediction_type},
        table,
        tokens["empty"],
        **{name: getattr(few_step, name) for name in ("num_steps", "start", "noise", "first")},
        **{name: getattr(settings.loss, name) for name in ("alpha", "weighting", "loss_scale")},
        **{name: getattr(settings.optimizer, name) for name in ("fake_lr", "generator_lr", "eps")},
        **{name: getattr(settings.guidance, name) for name in names},
        **{name: getattr(settings.gan, name) for name in ("lambda_d", "lambda_g")},
        elements=int(np.prod(SHAPE)),
    )
    return params, table, tokens, real, reference


def batch_of(tokens, real) -> sid.Batch:
    return sid.Batch(tokens["fake"], tokens["generator"], tokens["empty"], sid.Real(real, tokens["real"]))


def state_of(params) -> sid.TrainState:
    """Teacher, fake network and generator differ, as if a run had gone on for long."""
    _, fake, generator = (jax.tree.map(jnp.array, each) for each in params)
    return dataclasses.replace(sid.TrainState.create(params[0]), fake=fake, generator=generator)


def check(
    prediction_type: str,
    settings: sid.Settings,
    num_steps: int = 1,
    noise: str = "fresh",
    first: str = "scaled",
    only: tuple[int, ...] = (),
    jit: bool = False,
):
    """One iteration from a fresh state, for every n that can be drawn, or those in `only`.

    Without `jit` the same step runs operation by operation, which spares the seconds of compilation of each case.
    """
    start = 625 if num_steps == 1 else 999
    few_step = sid.FewStep(stable_diffusion(prediction_type), num_steps, start, noise, first)
    networks = sid.Networks(tiny_network.denoiser, tiny_network.encode, tiny_network.discriminator)
    step = (sid.jit_train_step if jit else sid.make_train_step)(networks, few_step, TIMES, settings)
    params, table, tokens, real, reference = setting(prediction_type, settings, few_step)

    for n in only or range(1, num_steps + 1):
        number = next(number for number in range(200) if n_of(settings, few_step, number) == n)
        draws = draws_of(settings, few_step, TIMES, number) | {"real": real.transpose(0, 3, 1, 2).astype(np.float64)}
        state = at_update(state_of(params), number)
        with jax.disable_jit(not jit):
            new, metrics = step(state, sid.Frozen(params[0], table), batch_of(tokens, real))
        nets = [Net(p) for p in params]
        expected = reference.iteration(*nets, tokens, draws, number)

        assert int(metrics["n"]) == n
        for which, old in (("fake", params[1]), ("generator", params[2])):
            loss = expected[f"{which}_loss"]
            assert float(metrics[f"{which}_loss"]) == pytest.approx(loss, rel=1e-4)
            got = gradients(old, getattr(new, which), getattr(new, f"{which}_optimizer").nu, settings.optimizer.beta2)
            for name, value in expected[f"{which}_gradients"].items():
                error = np.linalg.norm(got[name] - value) / np.linalg.norm(value)
                assert error < 1e-4, (which, name, n, error)
            assert float(metrics[f"{which}_grad_norm"]) == pytest.approx(
                np.sqrt(sum(np.sum(v**2) for v in expected[f"{which}_gradients"].values())), rel=1e-4
            )


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("strategy", PRESETS)
def test_guidance(strategy, prediction_type):
    """Every preset, with one step and with four; each n is met in turn."""
    alpha = 1.0 if prediction_type == "epsilon" else 1.2
    settings = settings_of(guidance=PRESETS[strategy], alpha=alpha)
    check(prediction_type, settings)
    turn = list(PRESETS).index(strategy) + 2 * (prediction_type == "v_prediction")
    check(prediction_type, settings, num_steps=4, only=(1 + turn % 4,))


def check_moved(state, nets, params):
    """Fake network and generator have moved from where they began as PyTorch's have."""
    for which, net, before in (("fake", nets[1], params[1]), ("generator", nets[2], params[2])):
        for name, value in net.named_parameters():
            moved = value.detach().numpy() - before[name]
            error = np.linalg.norm(np.asarray(getattr(state, which)[name]) - before[name] - moved)
            assert error < 1e-4 * np.linalg.norm(moved), (which, name)


@pytest.mark.parametrize("before_generator", [True, False])
@pytest.mark.parametrize("strategy", ["lsg", "anti_cfg"])
def test_three_iterations_with_dropped_prompts(strategy, before_generator):
    """The published order, in which x_g too is made of the dropped prompt, and the other one: both networks after three
    updates each, on which the order leaves its mark. With the GAN term captions of real images are dropped as well."""
    guidance = dataclasses.replace(PRESETS[strategy], prompt_dropout=0.5, drop_before_generator=before_generator)
    # Of larger steps float32's rounding, which each iteration takes from the one before, comes to 1e-4.
    optimizer = dataclasses.replace(OPTIMIZER, fake_lr=1e-3, generator_lr=1e-3)
    gan = sid.Gan(lambda_d=0.7, lambda_g=30.0)
    settings = settings_of(guidance=guidance, gan=gan, optimizer=optimizer)
    few_step = sid.FewStep(stable_diffusion(), 1, 625)
    networks = sid.Networks(tiny_network.denoiser, tiny_network.encode, tiny_network.discriminator)
    step = sid.make_train_step(networks, few_step, TIMES, settings)
    params, table, tokens, real, reference = setting("epsilon", settings, few_step)
    nets, state = [Net(each) for each in params], state_of(params)
    optimizers = reference.optimizers(*nets[1:], step=0)
    dropped = []
    for number in range(3):
        draws = draws_of(settings, few_step, TIMES, number) | {"real": real.transpose(0, 3, 1, 2).astype(np.float64)}
        dropped.append(int(draws["dropped"].sum()))
        with jax.disable_jit():
            state, metrics = step(state, sid.Frozen(params[0], table), batch_of(tokens, real))
        expected = reference.iteration(*nets, tokens, draws, number, optimizers)
        for which in ("fake", "generator"):
            assert float(metrics[f"{which}_loss"]) == pytest.approx(expected[f"{which}_loss"], rel=1e-4)
    assert 0 < sum(dropped) < 3 * BATCH
    check_moved(state, nets, params)


@pytest.mark.parametrize("accumulation", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_two_iterations_with_warm_up_and_limits(accumulation):
    """PyTorch's own clipping, and rates as the method's page has them, of gradients that are summed over micro-batches;
    the fake network's warm-up ends within the second iteration, the generator's after it."""
    batch, rate, largest = accumulation * BATCH, 0.1, 2.0
    warmups = 3 * batch // 2, 10 * batch
    optimizer = dataclasses.replace(
        OPTIMIZER, fake_lr=rate, generator_lr=rate, fake_warmup=warmups[0], generator_warmup=warmups[1],
        clip_norm=largest,
    )  # fmt: skip
    settings = settings_of(guidance=PRESETS["zero_cfg"], batch=batch, accumulation=accumulation, optimizer=optimizer)
    few_step = sid.FewStep(stable_diffusion(), 1, 625)
    networks = sid.Networks(tiny_network.denoiser, tiny_network.encode, tiny_network.discriminator)
    step = sid.make_train_step(networks, few_step, TIMES, settings)
    params, table, tokens, real, reference = setting("epsilon", settings, few_step)
    nets, state = [Net(each) for each in params], state_of(params)
    optimizers = reference.optimizers(*nets[1:], step=0)
    number = 0
    for each, net, warmup in zip(optimizers, nets[1:], warmups, strict=True):

        def before(optimizer, *_, net=net, warmup=warmup):
            assert torch.nn.utils.clip_grad_norm_(net.parameters(), largest) > largest
            optimizer.param_groups[0]["lr"] = rate * min(1, (number + 1) * batch / warmup)

        each.register_step_pre_hook(before)
    for number, rates in enumerate(((2 / 3, 0.1), (1, 0.2))):
        draws = draws_of(settings, few_step, TIMES, number)
        with jax.disable_jit():
            state, metrics = step(state, sid.Frozen(params[0], table), batch_of(tokens, real))
        reference.iteration(*nets, tokens, draws, number, optimizers)
        assert [float(metrics[f"{name}_lr"]) / rate for name in ("fake", "generator")] == pytest.approx(rates)
    check_moved(state, nets, params)


@pytest.mark.parametrize("noise", ["fixed", "ddim"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_noise_types(noise, prediction_type):
    alpha = 1.2 if prediction_type == "epsilon" else 1.0
    settings = settings_of(guidance=PRESETS["lsg"], alpha=alpha)
    check(prediction_type, settings, num_steps=4, noise=noise, only=(3,))


@pytest.mark.parametrize(
    ("num_steps", "noise", "only"), [(1, "fresh", ()), (4, "fresh", (1, 3)), (4, "fixed", (2,)), (4, "ddim", (1, 4))]
)
def test_unit_noise_first(num_steps, noise, only):
    """The first evaluation is given z_0 itself, where it is the one that is differentiated and where it is not."""
    check("epsilon", settings_of(guidance=PRESETS["lsg"]), num_steps, noise, "unit", only)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weightings(weighting):
    check("epsilon", settings_of(guidance=PRESETS["zero_cfg"], weighting=weighting))


def test_accumulation_is_one_batch():
    """The reference takes the whole batch at once; only the draws know of the micro-batches."""
    check("v_prediction", settings_of(guidance=PRESETS["all_different"], batch=2 * BATCH, accumulation=2))


@pytest.mark.parametrize(
    "strategy", [pytest.param(name, marks=[] if name in ("lsg", "zero_cfg") else pytest.mark.slow) for name in PRESETS]
)
def test_diffusion_gan(strategy):
    """Both terms of section 6; the losses are those without it, the gradients have it in them."""
    settings = settings_of(guidance=PRESETS[strategy], gan=sid.Gan(lambda_d=0.7, lambda_g=30.0))
    if strategy == "lsg":
        check("epsilon", settings, num_steps=4, only=(3,))
    else:
        check("epsilon", settings)


@pytest.mark.slow
def test_diffusion_gan_with_accumulation():
    settings = settings_of(guidance=PRESETS["all_different"], batch=2 * BATCH, accumulation=2)
    check("v_prediction", dataclasses.replace(settings, gan=sid.Gan(lambda_d=0.7, lambda_g=30.0)))


def test_compiled():
    settings = settings_of(guidance=PRESETS["lsg"], batch=2 * BATCH, accumulation=2)
    check("epsilon", settings, num_steps=2, jit=True)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [1.0, 1.2])
@pytest.mark.parametrize("noise", ["fresh", "fixed", "ddim"])
@pytest.mark.parametrize("num_steps", [1, 4])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("strategy", PRESETS)
def test_every_combination(strategy, prediction_type, num_steps, noise, alpha):
    check(prediction_type, settings_of(guidance=PRESETS[strategy], alpha=alpha), num_steps, noise)


def test_the_reference_uses_float64():
    net = Net(tiny_network.init(0))
    assert all(p.dtype == torch.float64 for p in net.parameters())
