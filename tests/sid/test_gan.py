"""The diffusion GAN: its losses by hand, its schedule, and that at weights of 0 it is not there."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_network

from sid_jax import sid
from sid_jax.sid import gan

B = 4
SHAPE = (4, 4, tiny_network.CHANNELS)
PROCESS = sid.VP.from_scheduler({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})
ON = sid.Gan(lambda_d=1.0, lambda_g=2.0)
SETTINGS = sid.Settings(batch=B, latent_shape=SHAPE, guidance=sid.preset("lsg", 1.5), lr=1e-3, glr=1e-3)
NETWORKS = sid.Networks(tiny_network.unet, unet_with_bottleneck=tiny_network.unet_with_bottleneck)
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
OF_GAN = {"discriminator_loss", "adversarial_loss", "real_logit", "fake_logit", "dropped_real"}


def batch_of(bad=()):
    rng = np.random.default_rng(1)

    def cond(size):
        text = rng.normal(size=(size, tiny_network.LENGTH, tiny_network.TEXT)).astype(np.float32)
        return {"text": text, "pooled": text.max(axis=1)}

    real = rng.normal(size=(B, *SHAPE)).astype(np.float32)
    real[list(bad)] = np.nan
    return {
        "fake": cond(B),
        "generator": cond(B),
        "empty": cond(1),
        "real": {"images": real, "tokens": cond(B)},
    }


def compiled(**changes):
    return sid.jit_train_step(NETWORKS, PROCESS, dataclasses.replace(SETTINGS, **changes), compiler_options=QUICK)


@pytest.fixture(scope="module")
def step():
    return compiled(gan=dataclasses.replace(ON, freeze=2 * B, start=3 * B))


def run(step, phases, batch=None):
    """The states after each of the phases, the one before them first, and the metrics of each."""
    states, metrics = [sid.TrainState.create(tiny_network.init(0))], []
    for phase in phases:
        state = jax.tree.map(jnp.copy, states[-1])
        new, values = step(state, {"teacher": tiny_network.init(1), "text": {}}, batch or batch_of(), phase)
        states.append(new)
        metrics.append({name: float(value) for name, value in values.items()})
    return states, metrics


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_logits_are_the_channel_mean_between_bounds():
    features = np.zeros((1, 2, 2, 3), np.float32)
    features[0, 0, 0], features[0, 0, 1], features[0, 1, 0] = (1, 2, 6), 50, -50
    np.testing.assert_array_equal(gan.logits(jnp.asarray(features, jnp.bfloat16)), [[[3, 10], [-10, 0]]])
    assert gan.logits(jnp.asarray(features, jnp.bfloat16)).dtype == jnp.float32


def test_cross_entropies_by_hand():
    logits = jnp.asarray([[[0.0, 2.0]]])
    of_1 = (math.log(2) + math.log1p(math.exp(-2))) / 2
    of_0 = (math.log(2) + math.log1p(math.exp(2))) / 2
    assert float(gan.cross_entropy(logits, 1)[0]) == pytest.approx(of_1)
    assert float(gan.cross_entropy(logits, 0)[0]) == pytest.approx(of_0)
    yes, no = jnp.asarray([True]), jnp.asarray([False])
    assert float(gan.discriminator_loss(logits, yes, logits, yes)[0]) == pytest.approx((of_1 + of_0) / 2)
    assert float(gan.discriminator_loss(logits, yes, logits, no)[0]) == pytest.approx(of_1 / 2)
    assert float(gan.adversarial_loss(logits, yes, jnp.full((1, 1, 1, 1), 3.0))[0]) == pytest.approx(3 * of_1)


def test_a_sample_left_out_has_no_gradient():
    bad, kept = jnp.full((2, 1, 1), jnp.nan).at[0].set(1.0), jnp.asarray([True, False])
    gradient = jax.grad(lambda x: gan.discriminator_loss(x, kept, x, kept).sum())(bad)
    assert float(gradient[1, 0, 0]) == 0 and np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"lambda_d": -1.0}, "lambda_d"),
        ({"lambda_g": -1.0}, "lambda_g"),
        ({"lambda_g": 1.0}, "lambda_d"),
        ({"start": -1}, "start"),
        ({"freeze": -1}, "freeze"),
    ],
)
def test_refused(arguments, key):
    with pytest.raises(ValueError, match=rf"^gan\.{key}: "):
        sid.Gan(**arguments)
    with pytest.raises(ValueError, match=r"^gan\.lambda_d: "):
        sid.make_train_step(sid.Networks(tiny_network.unet), PROCESS, dataclasses.replace(SETTINGS, gan=ON))


def test_the_phases_of_a_run():
    settings = dataclasses.replace(SETTINGS, gan=dataclasses.replace(ON, freeze=6, start=9))
    phases = [settings.phase(step) for step in range(5)]
    frozen, without, whole = sid.Phase(False, False), sid.Phase(True, False), sid.Phase(True, True)
    assert phases == [frozen, frozen, without, whole, whole]
    assert settings.last_phase == whole and settings.frozen_steps == 2
    assert SETTINGS.phase(0) == SETTINGS.last_phase == without


def test_a_frozen_generator_keeps_its_state_and_the_fake_network_learns(step):
    """The first update after it is the first for Adam's bias correction and for the average."""
    settings = dataclasses.replace(SETTINGS, gan=dataclasses.replace(ON, freeze=2 * B, start=3 * B))
    states, metrics = run(step, [settings.phase(number) for number in range(4)])
    for name in ("generator", "generator_moment", "ema"):
        assert_equal(getattr(states[0], name), getattr(states[2], name))
    assert np.any(states[1].fake["conv_in"] != states[2].fake["conv_in"])
    assert metrics[0].keys() == metrics[3].keys() >= OF_GAN
    assert metrics[1]["generator_loss"] == metrics[1]["generator_grad_norm"] == 0 and metrics[1]["ema_beta"] == 1
    assert metrics[2]["ema_beta"] == 0 and metrics[2]["adversarial_loss"] == 0 < metrics[3]["adversarial_loss"]
    # Without a first moment, the first update of Adam is the learning rate, whatever the gradient.
    change = np.abs(np.asarray(states[3].generator["conv_in"] - states[2].generator["conv_in"]))
    np.testing.assert_allclose(change, SETTINGS.glr, rtol=1e-2)


def test_at_weights_of_zero_it_is_not_there(step):
    """Losses and state are those without real images, to the bit; no parameter is added with or without weights."""
    data_free, zero = compiled(), compiled(gan=sid.Gan(0.0, 0.0, start=B, freeze=0))
    without = {name: value for name, value in batch_of().items() if name != "real"}
    phases = [None] * 2
    (one, of_one), (other, of_other) = (
        run(lambda s, f, b, phase, step=step: step(s, f, b), phases, batch)
        for step, batch in ((data_free, without), (zero, batch_of()))
    )
    assert_equal(one[-1], other[-1])
    assert of_one == of_other and not OF_GAN & set(of_one[0])
    with_gan, metrics = run(step, [sid.Phase(True, True)])
    assert jax.tree.map(jnp.shape, with_gan[-1]) == jax.tree.map(jnp.shape, one[-1])
    # The loss of the first update is before any change: with weights too it is the data-free one.
    assert metrics[0]["fake_loss"] == pytest.approx(of_one[0]["fake_loss"], rel=1e-6)


def test_a_real_image_that_is_not_finite_is_left_out_and_counted(step):
    states, metrics = run(step, [sid.Phase(True, True)], batch_of(bad=[1, 2]))
    assert metrics[0]["dropped_real"] == 2 and metrics[0]["dropped_fake"] == metrics[0]["nonfinite_grads"] == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states[-1]))


def test_the_discriminator_learns():
    """With a discriminator's loss of great weight and a frozen generator, D tells real images from generated ones."""
    step = compiled(gan=sid.Gan(lambda_d=1e4), lr=1e-2)
    batch = batch_of()
    batch["real"]["images"] += 4
    _, metrics = run(step, [sid.Phase(False, False)] * 40, batch)
    values = {name: [step[name] for step in metrics] for name in OF_GAN}
    assert np.mean(values["discriminator_loss"][-10:]) < 0.5 < np.mean(values["discriminator_loss"][:5])
    assert np.mean(values["real_logit"][-10:]) > 0 > np.mean(values["fake_logit"][-10:])


class Evaluations:
    """Counts, at run time, the images that the network has seen in forward passes."""

    def __init__(self):
        self.images = 0

    def unet_with_bottleneck(self, params, x, t, cond):
        jax.debug.callback(lambda: setattr(self, "images", self.images + len(x)))
        middle = x * params["w"] + cond[:, None, None, :]
        return middle * params["w"], middle

    def unet(self, params, x, t, cond):
        return self.unet_with_bottleneck(params, x, t, cond)[0]


@pytest.mark.parametrize(("strategy", "passes"), [("zero_cfg", 5), ("anti_cfg", 7)])
def test_only_the_real_images_are_evaluated_more(strategy, passes):
    """A = 1 + g1 and B = 1 + g23 + g4 forward passes (section 8), and one more for the real images."""
    evaluations = Evaluations()
    networks = sid.Networks(evaluations.unet, unet_with_bottleneck=evaluations.unet_with_bottleneck)
    settings = dataclasses.replace(SETTINGS, guidance=sid.preset(strategy), gan=ON)
    step = sid.jit_train_step(networks, PROCESS, settings, compiler_options=QUICK)
    params = {"w": np.full(3, 0.9, np.float32)}
    cond = np.zeros((B, 3), np.float32)
    real = {"images": np.zeros((B, *SHAPE), np.float32), "tokens": cond}
    batch = {"fake": cond, "generator": cond, "empty": cond[:1], "real": real}
    step(sid.TrainState.create(params), {"teacher": params, "text": {}}, batch)
    jax.effects_barrier()
    assert evaluations.images == B * (passes + 1)


@pytest.mark.parametrize("strategy", ["lsg", pytest.param("zero_cfg", marks=pytest.mark.slow)])
def test_cost_of_the_term_in_a_compiled_step(strategy):
    """FLOPs above the data-free step: at most a forward and a backward pass of the encoder for each real image.

    The network is a stack of matrix products whose first half is the encoder.
    """
    layers, width, batch = 8, 256, 128

    def unet_with_bottleneck(params, x, t, cond):
        h = x.reshape(len(x), width)
        for layer in range(layers):
            if layer == layers // 2:
                middle = h
            h = h @ params["w"][layer]
        return h.reshape(x.shape), middle.reshape(x.shape)

    networks = sid.Networks(lambda *a: unet_with_bottleneck(*a)[0], unet_with_bottleneck=unet_with_bottleneck)
    params = {"w": jax.ShapeDtypeStruct((layers, width, width), jnp.float32)}
    cond = jax.ShapeDtypeStruct((batch, 3), jnp.float32)
    real = {"images": jax.ShapeDtypeStruct((batch, 4, 8, 8), jnp.float32), "tokens": cond}
    inputs = {"fake": cond, "generator": cond, "empty": jax.ShapeDtypeStruct((1, 3), jnp.float32), "real": real}

    def flops(term):
        settings = dataclasses.replace(
            SETTINGS, batch=batch, latent_shape=(4, 8, 8), guidance=sid.preset(strategy), gan=term
        )
        step = sid.jit_train_step(networks, PROCESS, settings)
        state = jax.eval_shape(sid.TrainState.create, params)
        return step.lower(state, {"teacher": params, "text": {}}, inputs).compile().cost_analysis()["flops"]

    encoder = 2 * batch * (layers // 2) * width * width
    assert 2 < (flops(ON) - flops(sid.Gan())) / encoder < 3.05
