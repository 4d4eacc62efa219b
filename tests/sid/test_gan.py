"""The diffusion GAN: its losses by hand, its schedule, and that at weights of 0 it is not there."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_network
from processes import stable_diffusion

from sid_jax import sid
from sid_jax.sid import gan

B = 4
SHAPE = (4, 4, tiny_network.CHANNELS)
PROCESS = stable_diffusion()
FEW_STEP, TIMES = sid.FewStep(PROCESS, 1, 625), sid.Uniform()
ON = sid.Gan(lambda_d=1.0, lambda_g=2.0)
OPTIMIZER = sid.Optimizer(fake_lr=1e-3, generator_lr=1e-3)
SETTINGS = sid.Settings(batch=B, shape=SHAPE, guidance=sid.preset("lsg", 1.5), optimizer=OPTIMIZER)
NETWORKS = sid.Networks(tiny_network.denoiser, discriminator=tiny_network.discriminator)
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
OF_GAN = {"discriminator_loss", "adversarial_loss", "real_logit", "fake_logit", "dropped_real"}


def batch_of(bad=()):
    rng = np.random.default_rng(1)

    def cond(size):
        text = rng.normal(size=(size, tiny_network.LENGTH, tiny_network.TEXT)).astype(np.float32)
        return {"text": text, "pooled": text.max(axis=1)}

    real = rng.normal(size=(B, *SHAPE)).astype(np.float32)
    real[list(bad)] = np.nan
    return sid.Batch(fake=cond(B), generator=cond(B), empty=cond(1), real=sid.Real(real, cond(B)))


def compiled(**changes):
    return sid.jit_train_step(
        NETWORKS, FEW_STEP, TIMES, dataclasses.replace(SETTINGS, **changes), compiler_options=QUICK
    )


@pytest.fixture(scope="module")
def step():
    return compiled(gan=dataclasses.replace(ON, freeze=2 * B, start=3 * B))


def run(step, phases, batch=None):
    """The states after each of the phases, the one before them first, and the metrics of each."""
    states, metrics = [sid.TrainState.create(tiny_network.init(0))], []
    for phase in phases:
        state = jax.tree.map(jnp.copy, states[-1])
        new, values = step(state, sid.Frozen(tiny_network.init(1)), batch or batch_of(), phase)
        states.append(new)
        metrics.append({name: float(value) for name, value in values.items()})
    return states, metrics


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_logits_are_those_of_the_network_between_bounds():
    """Raw where they are handed on, in float32, and in [-10, 10] where they are used."""
    raw = np.array([[[3, 50], [-50, 0]]], np.float32)

    def fake(x_t, t, cond):
        return x_t, jnp.asarray(raw, jnp.bfloat16)

    draw = sid.Draw(np.array([625]), np.zeros((1, *SHAPE), np.float32))
    judged = gan.judge_real(fake, PROCESS, np.zeros((1, *SHAPE), np.float32), draw, None)
    np.testing.assert_array_equal(judged.logits, raw)
    assert judged.logits.dtype == jnp.float32 and judged.kept.all()
    np.testing.assert_array_equal(gan.clip_logits(judged.logits), [[[3, 10], [-10, 0]]])
    assert float(judged.mean(batch=1)) == 3 / 4
    assert float(judged._replace(kept=jnp.array([False])).mean(batch=1)) == 0
    bounded = gan.cross_entropy(jnp.array([[[3.0, 10], [-10, 0]]]), 1)
    np.testing.assert_allclose(ON.adversarial_loss(judged, jnp.ones((1, 1, 1, 1))), bounded, rtol=1e-6)


@pytest.mark.parametrize("shape", [(2,), (2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_logits_of_any_shape(shape):
    """One for each sample, or a map of them: all axes but the first are averaged."""
    logits = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    kept = jnp.asarray([True, False])
    expected = np.log1p(np.exp(-logits)).reshape(2, -1).mean(axis=1)
    np.testing.assert_allclose(gan.cross_entropy(jnp.asarray(logits), 1), expected, rtol=1e-6)
    loss = ON.adversarial_loss(sid.Judged(jnp.asarray(logits), kept), jnp.ones((2, 1, 1, 1)))
    np.testing.assert_allclose(loss, expected * [1, 0], rtol=1e-6)
    assert float(sid.Judged(jnp.asarray(logits), kept).mean(2)) == pytest.approx(logits[0].mean() / 2, rel=1e-5)


def test_cross_entropies_by_hand():
    logits = jnp.asarray([[[0.0, 2.0]]])
    of_1 = (math.log(2) + math.log1p(math.exp(-2))) / 2
    of_0 = (math.log(2) + math.log1p(math.exp(2))) / 2
    assert float(gan.cross_entropy(logits, 1)[0]) == pytest.approx(of_1)
    assert float(gan.cross_entropy(logits, 0)[0]) == pytest.approx(of_0)
    yes, no = (sid.Judged(logits, jnp.asarray([kept])) for kept in (True, False))
    weight = jnp.ones(1)
    assert float(ON.discriminator_loss(yes, yes, weight)[0]) == pytest.approx((of_1 + of_0) / 2)
    assert float(ON.discriminator_loss(yes, no, weight)[0]) == pytest.approx(of_1 / 2)
    assert float(ON.adversarial_loss(yes, jnp.full((1, 1, 1, 1), 3.0))[0]) == pytest.approx(3 * of_1)


def test_a_sample_left_out_has_no_gradient():
    bad, kept = jnp.full((2, 1, 1), jnp.nan).at[0].set(1.0), jnp.asarray([True, False])

    def loss(logits):
        judged = sid.Judged(logits, kept)
        return ON.discriminator_loss(judged, judged, jnp.ones(2)).sum()

    gradient = jax.grad(loss)(bad)
    assert float(gradient[1, 0, 0]) == 0 and np.isfinite(gradient).all()


def test_what_the_terms_count():
    """Section 6: the map's mean times C H W times its weight; L_sid has its own factor."""
    assert ON.used and not sid.Gan().used
    assert ON.discriminator_factor(48) == 48.0
    assert ON.generator_factors(100.0, 48) == (100.0, 96.0)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"lambda_d": -1.0}, "lambda_d"),
        ({"lambda_g": -1.0}, "lambda_g"),
        ({"lambda_g": 1.0}, "lambda_d"),
        ({"start": -1}, "start"),
        ({"freeze": -1}, "freeze"),
        ({"form": "maps"}, "form"),
        ({"group": 0}, "group"),
    ],
)
def test_refused(arguments, key):
    with pytest.raises(ValueError, match=rf"^gan\.{key}: "):
        sid.Gan(**arguments)
    with pytest.raises(ValueError, match=r"^gan\.lambda_d: "):
        sid.make_train_step(sid.Networks(tiny_network.denoiser), FEW_STEP, TIMES, dataclasses.replace(SETTINGS, gan=ON))


def test_real_images_are_needed(step):
    with pytest.raises(ValueError, match=r"^gan\.lambda_d: the GAN term needs real images"):
        run(step, [sid.Phase(True, True)], dataclasses.replace(batch_of(), real=None))


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
    for name in ("generator", "generator_optimizer", "ema"):
        assert_equal(getattr(states[0], name), getattr(states[2], name))
    assert np.any(states[1].fake["conv_in"] != states[2].fake["conv_in"])
    assert metrics[0].keys() == metrics[3].keys() >= OF_GAN
    assert metrics[1]["generator_loss"] == metrics[1]["generator_grad_norm"] == 0 and metrics[1]["ema_beta"] == 1
    assert metrics[2]["ema_beta"] == 0 and metrics[2]["adversarial_loss"] == 0 < metrics[3]["adversarial_loss"]
    # Without a first moment, the first update of Adam is the learning rate, whatever the gradient.
    change = np.abs(np.asarray(states[3].generator["conv_in"] - states[2].generator["conv_in"]))
    np.testing.assert_allclose(change, OPTIMIZER.generator_lr, rtol=1e-2)


def test_at_weights_of_zero_it_is_not_there(step):
    """Losses and state are those without real images, to the bit; no parameter is added with or without weights."""
    data_free, zero = compiled(), compiled(gan=sid.Gan(0.0, 0.0, start=B, freeze=0))
    without = dataclasses.replace(batch_of(), real=None)
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
    step = compiled(gan=sid.Gan(lambda_d=1e4), optimizer=dataclasses.replace(OPTIMIZER, fake_lr=1e-2))
    batch = batch_of()
    batch.real.images[:] += 4
    _, metrics = run(step, [sid.Phase(False, False)] * 40, batch)
    values = {name: [step[name] for step in metrics] for name in OF_GAN}
    assert np.mean(values["discriminator_loss"][-10:]) < 0.5 < np.mean(values["discriminator_loss"][:5])
    assert np.mean(values["real_logit"][-10:]) > 0 > np.mean(values["fake_logit"][-10:])


class Evaluations:
    """Counts, at run time, the images that the network has seen in forward passes."""

    def __init__(self):
        self.images = 0

    def discriminator(self, params, x, t, cond, dropout_key):
        jax.debug.callback(lambda: setattr(self, "images", self.images + len(x)))
        middle = x * params["w"] + cond[:, None, None, :]
        return middle * params["w"], middle.mean(axis=-1)

    def denoiser(self, params, x, t, cond, dropout_key):
        return self.discriminator(params, x, t, cond, dropout_key)[0]


@pytest.mark.parametrize(("strategy", "passes"), [("zero_cfg", 5), ("anti_cfg", 7)])
def test_only_the_real_images_are_evaluated_more(strategy, passes):
    """A = 1 + g1 and B = 1 + g23 + g4 forward passes (section 8), and one more for the real images."""
    evaluations = Evaluations()
    networks = sid.Networks(evaluations.denoiser, discriminator=evaluations.discriminator)
    settings = dataclasses.replace(SETTINGS, guidance=sid.preset(strategy), gan=ON)
    step = sid.jit_train_step(networks, FEW_STEP, TIMES, settings, compiler_options=QUICK)
    params = {"w": np.full(3, 0.9, np.float32)}
    cond = np.zeros((B, 3), np.float32)
    real = sid.Real(np.zeros((B, *SHAPE), np.float32), cond)
    step(sid.TrainState.create(params), sid.Frozen(params), sid.Batch(cond, cond, cond[:1], real))
    jax.effects_barrier()
    assert evaluations.images == B * (passes + 1)


@pytest.mark.parametrize("strategy", ["lsg", pytest.param("zero_cfg", marks=pytest.mark.slow)])
def test_cost_of_the_term_in_a_compiled_step(strategy):
    """FLOPs above the data-free step: at most a forward and a backward pass of the encoder for each real image.

    The network is a stack of matrix products whose first half is the encoder.
    """
    layers, width, batch = 8, 256, 128

    def discriminator(params, x, t, cond, dropout_key):
        h = x.reshape(len(x), width)
        for layer in range(layers):
            if layer == layers // 2:
                middle = h
            h = h @ params["w"][layer]
        return h.reshape(x.shape), middle.reshape(x.shape).mean(axis=-1)

    networks = sid.Networks(lambda *a: discriminator(*a)[0], discriminator=discriminator)
    params = {"w": jax.ShapeDtypeStruct((layers, width, width), jnp.float32)}
    cond = jax.ShapeDtypeStruct((batch, 3), jnp.float32)
    real = sid.Real(jax.ShapeDtypeStruct((batch, 4, 8, 8), jnp.float32), cond)
    inputs = sid.Batch(cond, cond, jax.ShapeDtypeStruct((1, 3), jnp.float32), real)

    def flops(term):
        settings = dataclasses.replace(SETTINGS, batch=batch, shape=(4, 8, 8), guidance=sid.preset(strategy), gan=term)
        step = sid.jit_train_step(networks, FEW_STEP, TIMES, settings)
        state = jax.eval_shape(sid.TrainState.create, params)
        return step.lower(state, sid.Frozen(params), inputs).compile().cost_analysis()["flops"]

    encoder = 2 * batch * (layers // 2) * width * width
    assert 2 < (flops(ON) - flops(sid.Gan())) / encoder < 3.05


SIDA = dataclasses.replace(ON, form="sida")


@pytest.mark.parametrize(("group", "size"), [(2, 2), (None, 4)])
def test_entropies_of_sida_are_those_of_groups(group, size):
    """Raw logits where D learns, weighted by its time; in [-10, 10] where the generator does. A sample that is left out
    is left out of its group too."""
    term = dataclasses.replace(SIDA, group=group)
    rng = np.random.default_rng(0)
    real, fake = rng.normal(scale=20, size=(2, 4, 3, 3))
    weight, kept = np.array([1.0, 20, 300, 4]), np.array([True, True, True, False])
    real[3] = np.nan

    def expected(logits, label):
        values = np.logaddexp(0, -logits if label else logits).mean(axis=(1, 2))
        return np.concatenate(
            [np.full(size, values[i : i + size][kept[i : i + size]].mean()) for i in range(0, 4, size)]
        )

    of_real, of_fake = (sid.Judged(jnp.asarray(x, jnp.float32), jnp.ones(4, bool)) for x in (real, fake))
    values = term.discriminator_loss(of_real, of_fake, jnp.asarray(weight, jnp.float32))
    entropies = (expected(real, 1) + expected(fake, 0)) / 2 * kept
    np.testing.assert_allclose(values, weight * entropies, rtol=1e-5)
    mean = term.discriminator_entropy(values, jnp.asarray(weight, jnp.float32), 4)
    assert float(mean) == pytest.approx(entropies.sum() / 4, rel=1e-5)
    w = jnp.asarray(weight, jnp.float32)[:, None, None, None]
    loss = term.adversarial_loss(of_fake._replace(kept=jnp.asarray(kept)), w)
    np.testing.assert_allclose(loss, weight * expected(fake.clip(-10, 10), 1) * kept, rtol=1e-5)
    gradient = jax.grad(lambda x: term.discriminator_loss(of_real._replace(logits=x), of_fake, w[:, 0, 0, 0]).sum())
    assert np.isfinite(gradient(of_real.logits)).all()


def test_what_the_terms_of_sida_count():
    """D's loss is not multiplied by C H W; the two terms of the generator count half each, once there are two."""
    assert SIDA.discriminator_factor(48) == 1.0
    assert SIDA.generator_factors(100.0, 48) == (50.0, 48.0)
    assert SIDA.of_real_conditions and not ON.of_real_conditions and not sid.Gan(form="sida").of_real_conditions


@pytest.mark.parametrize(("batch", "trained", "adversarial"), [(256, 391, 782), (512, 196, 391), (8192, 13, 25)])
def test_first_iterations_of_sida(batch, trained, adversarial):
    """The published table; where a number of images is a multiple of the batch, one iteration more is frozen."""
    term = sid.Gan(1.0, 0.01, start=200_000, freeze=100_000, form="sida")
    settings = dataclasses.replace(SETTINGS, batch=batch, gan=term)
    phases = [settings.phase(step) for step in range(adversarial + 1)]
    assert [phase.generator for phase in phases].index(True) == settings.frozen_steps == trained
    assert [phase.adversarial for phase in phases].index(True) == adversarial
    settings = dataclasses.replace(settings, batch=1000)
    assert not settings.phase(100).generator and settings.phase(101).generator and settings.frozen_steps == 101
    assert not settings.phase(200).adversarial and settings.phase(201).adversarial
    at_once = dataclasses.replace(settings, gan=dataclasses.replace(term, start=0, freeze=0))
    assert at_once.phase(0) == sid.Phase(True, True) and at_once.frozen_steps == 0


def test_groups_divide_a_micro_batch():
    settings = dataclasses.replace(SETTINGS, batch=12, accumulation=2)
    with pytest.raises(ValueError, match=r"^gan\.group: 4 does not divide the 6 samples of a micro-batch"):
        dataclasses.replace(settings, gan=dataclasses.replace(SIDA, group=4))
    dataclasses.replace(settings, gan=dataclasses.replace(SIDA, group=3))
