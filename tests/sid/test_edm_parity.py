"""SiD and SiDA on a teacher of EDM: the train step against plain PyTorch, with the draws repeated from their keys."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_network
import torch
from repeated_draws import draws_of
from torch_edm_reference import Denoiser, Loop

from sid_jax import sid

B, SIDE = 8, 4
SHAPE = (SIDE, SIDE, tiny_network.CHANNELS)
PROCESS, TIMES = sid.EDM(), sid.LogNormalKarras()
FEW_STEP = sid.FewStep(PROCESS, 1, PROCESS.default_start(1))
SIDA = sid.Gan(1.0, 0.01, form="sida")
OPTIMIZER = sid.Optimizer(1e-3, 1e-3, eps=1.0)
SETTINGS = sid.Settings(
    B, SHAPE, seed=4, loss=sid.Loss(alpha=1.2, loss_scale=100.0), optimizer=OPTIMIZER, ema=sid.Ema(half_life=500.0)
)


def denoiser(params, x, t, cond, dropout_key=None):
    return discriminator(params, x, t, cond, dropout_key)[0]


def discriminator(params, x, t, cond, dropout_key=None):
    """EDM's preconditioning of the tiny network, whose output is not a number where a text says so."""
    assert dropout_key is None
    s = t[:, None, None, None]
    total = s**2 + 0.25
    output, logits = tiny_network.discriminator(params, x / jnp.sqrt(total), 250 * jnp.log(t), cond)
    bad = (cond["text"][:, 0, 0] > 100)[:, None, None, None]
    return jnp.where(bad, jnp.nan, 0.25 / total * x + 0.5 * s / jnp.sqrt(total) * output), logits


NETWORKS = sid.Networks(denoiser, discriminator=discriminator)


def conditions(bad=()):
    """Of both updates, and real images; in SiDA those of A are the real images' own."""
    rng = np.random.default_rng(5)

    def cond(marked=()):
        text = rng.normal(size=(B, tiny_network.LENGTH, tiny_network.TEXT)).astype(np.float32)
        text[list(marked), 0, 0] = 1000
        return {"text": text, "pooled": text[:, 1:].max(axis=1)}

    fake, generator = cond(bad[:1]), cond(bad[1:])
    real = sid.Real(rng.normal(size=(B, *SHAPE)).astype(np.float32), fake)
    return sid.Batch(fake, generator, jax.tree.map(lambda x: x[:1], fake), real)


def tensors(draws, batch):
    real = batch.real.images.transpose(0, 3, 1, 2).astype(np.float64)
    numbers = {name: torch.tensor(np.asarray(value)) for name, value in (draws | {"real": real}).items()}
    conds = (
        tuple(torch.tensor(cond[name], dtype=torch.float64) for name in ("text", "pooled"))
        for cond in (batch.fake, batch.generator)
    )
    return numbers, *conds


def check(settings, iterations, bad=()):
    """Losses of every iteration, and all three networks at its end, which every gradient has had a part in."""
    params = [tiny_network.init(seed) for seed in range(3)]
    state = sid.TrainState.create(params[1], settings.optimizer, student=params[2])
    nets, gan = [Denoiser(p) for p in params], settings.gan
    loop = Loop(
        *nets, lr=settings.optimizer.fake_lr, eps=settings.optimizer.eps, alpha=settings.loss.alpha, gan=gan.used,
        group=gan.group or B, clip_fake=settings.optimizer.clip_fake, half_life=settings.ema.half_life,
    )  # fmt: skip
    step, batch = sid.make_train_step(NETWORKS, FEW_STEP, TIMES, settings), conditions(bad)
    trained = 0
    for number in range(iterations):
        phase = settings.phase(number)
        with jax.disable_jit():
            state, metrics = step(state, sid.Frozen(params[0]), batch, phase)
        draws, of_fake, of_generator = tensors(draws_of(settings, FEW_STEP, TIMES, number), batch)
        loss, of_d = loop.update_fake(draws, of_fake)
        assert float(metrics["fake_loss"]) == pytest.approx(loss, rel=1e-4)
        if gan.used:
            assert float(metrics["discriminator_loss"]) == pytest.approx(of_d, rel=1e-4)
        assert (float(metrics["dropped_fake"]), float(metrics["dropped_generator"])) == (len(bad[:1]), len(bad[1:]))
        if phase.generator:
            loss = loop.update_generator(draws, of_generator, phase.adversarial)
            assert float(metrics["generator_loss"]) == pytest.approx(loss, rel=1e-4)
            loop.average(trained * B, B)
            trained += 1
    for which, before, expected in (
        ("fake", params[1], dict(nets[1].named_parameters())),
        ("generator", params[2], dict(nets[2].named_parameters())),
        ("ema", params[2], loop.ema),
    ):
        for name, value in expected.items():
            moved = value.detach().numpy() - before[name]
            error = np.linalg.norm(np.asarray(getattr(state, which)[name]) - before[name] - moved)
            assert error <= 1e-4 * np.linalg.norm(moved), (which, name)
            assert np.linalg.norm(moved) > 0
    return state, loop


def assert_same_moments(state, loop):
    """Of a first update: the squared gradients."""
    for which, net, adam in (("fake", loop.fake, loop.adams[0]), ("generator", loop.generator, loop.adams[1])):
        moments = getattr(state, f"{which}_optimizer").nu
        for name, p in net.named_parameters():
            root, expected = np.sqrt(np.asarray(moments[name])), adam.state[p]["exp_avg_sq"].sqrt().numpy()
            assert np.linalg.norm(root - expected) <= 1e-4 * np.linalg.norm(expected), (which, name)


def test_sid():
    settings = dataclasses.replace(SETTINGS, loss=dataclasses.replace(SETTINGS.loss, alpha=1.0))
    assert_same_moments(*check(settings, 1))


def test_three_iterations_of_sid():
    """In each of them a sample of either update is no number."""
    check(SETTINGS, 3, bad=(2, 5))


OF_SIDA = dataclasses.replace(OPTIMIZER, clip_fake=1.0, eps=0.1)


def test_sida():
    """Both terms of the GAN and the fake network's clipping; a sample of update A is no number."""
    settings = dataclasses.replace(SETTINGS, gan=dataclasses.replace(SIDA, group=8), optimizer=OF_SIDA)
    assert_same_moments(*check(settings, 1, bad=(2,)))


def test_three_iterations_of_sida():
    """The generator is frozen in the first, and listens to the discriminator in the third. Two groups a batch."""
    gan = dataclasses.replace(SIDA, group=4, freeze=B - 1, start=B)
    settings = dataclasses.replace(SETTINGS, gan=gan, optimizer=OF_SIDA)
    phases = [sid.Phase(False, False), sid.Phase(True, False), sid.Phase(True, True)]
    assert [settings.phase(number) for number in range(3)] == phases
    check(settings, 3)
