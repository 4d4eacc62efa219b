"""The losses by themselves: weightings, guidance scales, gradients, and samples that are not finite."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_network
from processes import stable_diffusion

from sid_jax import sid
from sid_jax.sid.losses import WEIGHTINGS

B = 4
PROCESS = stable_diffusion()
RNG = np.random.default_rng(0)
X_G, NOISE, Y_REAL, Y_FAKE2, Y_FAKE3 = RNG.normal(size=(5, B, 4, 4, tiny_network.CHANNELS)).astype(np.float32)
T = np.array([25, 300, 625, 970], np.int32)
TABLE = tiny_network.init_text(9)
COND = tiny_network.encode(TABLE, RNG.integers(0, tiny_network.VOCABULARY, (B, tiny_network.LENGTH)))
EMPTY = tiny_network.encode(TABLE, np.zeros((1, tiny_network.LENGTH), int))
TEACHER, FAKE = tiny_network.init(0), tiny_network.init(1)
GUIDANCE = sid.preset("lsg", 1.5)
NUMBERS = sid.Loss(alpha=1.2)
DRAW = sid.Draw(T, NOISE)
CONDITION = sid.Condition(COND, EMPTY)


def network(params, bad=None):
    """The tiny network; where `bad`, one number for each sample, is not finite, it is the whole output."""

    def call(x_t, t, cond):
        output = tiny_network.denoiser(params, x_t, t, cond)
        if bad is None:
            return output
        value = jnp.repeat(jnp.asarray(bad, jnp.float32), len(x_t) // B)[:, None, None, None]
        return jnp.where(jnp.isfinite(value), output, value)

    return call


def test_gaps_are_distances_of_the_images_that_the_loss_compares():
    """|y_real - y_fake2| and |x_g - y_real|, each a mean over a sample's pixels; the latter is what w is made of."""
    found = generator_loss(X_G)
    scales = (GUIDANCE.kappa4, TEACHER), (GUIDANCE.kappa2, FAKE)
    x_t = PROCESS.corrupt(X_G, *DRAW)
    y_real, y_fake = (
        PROCESS.to_x0(x_t, T, sid.guided(network(params), x_t, T, CONDITION, (scale,))[0]) for scale, params in scales
    )
    for gap, (one, other) in zip(found.gaps, ((y_real, y_fake), (X_G, y_real)), strict=True):
        np.testing.assert_allclose(gap, np.abs(one - other).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found.w[:, 0, 0, 0], 1 / found.gaps.generator_teacher, rtol=1e-5)
    without = generator_loss(X_G, teacher_bad=[0, np.nan, 0, 0]).gaps
    assert [gap[1] for gap in without] == [0, 0]
    np.testing.assert_allclose(without.teacher_fake[2:], found.gaps.teacher_fake[2:], rtol=1e-5)


def take(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def condition_of(index):
    return sid.Condition(take(COND, index), EMPTY)


def fake_loss(psi, index=slice(None), x_g=X_G, bad=None):
    return sid.fake_loss(
        network(psi, bad), PROCESS, x_g[index], take(DRAW, index), condition_of(index), GUIDANCE.kappa1
    )


def generator_loss(x_g, index=slice(None), teacher_bad=None, fake_bad=None):
    return sid.generator_loss(
        network(TEACHER, teacher_bad),
        network(FAKE, fake_bad),
        PROCESS,
        x_g,
        take(DRAW, index),
        condition_of(index),
        GUIDANCE,
        NUMBERS,
    )


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.2])
def test_sid_loss(alpha):
    w = RNG.uniform(0.1, 2, size=(B, 1, 1, 1)).astype(np.float32)
    expected = np.sum(w * (Y_REAL - Y_FAKE2) * ((Y_REAL - X_G) - alpha * (Y_REAL - Y_FAKE3)), axis=(1, 2, 3))
    loss = sid.sid_loss(X_G, Y_REAL, Y_FAKE2, Y_FAKE3, w, alpha)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    if alpha == 1:
        short = np.sum(w * (Y_REAL - Y_FAKE2) * (Y_FAKE3 - X_G), axis=(1, 2, 3))
        np.testing.assert_allclose(loss, short, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["sid", *WEIGHTINGS])
def test_weightings(name):
    abar = np.asarray(PROCESS.alphas_cumprod)[T]
    s = np.sqrt(1 - abar)
    expected = {
        "sid": 1 / np.abs(X_G - Y_REAL).mean(axis=(1, 2, 3)),
        "snr": abar / (1 - abar),
        "snr_sqrt": np.sqrt(abar / (1 - abar)),
        "1_over_sigma": 1 / s,
        "1_over_sigma2": 1 / (1 - abar),
        "1_minus_sigma": 1 - s,
        "1_minus_sigma_squared": (1 - s) ** 2,
    }[name]
    w = sid.weights(name, PROCESS, X_G, Y_REAL, T)
    assert w.shape == (B, 1, 1, 1)
    np.testing.assert_allclose(w[:, 0, 0, 0], expected, rtol=1e-3)


def test_the_weight_is_bounded_and_has_no_gradient():
    assert sid.weights("sid", PROCESS, X_G, X_G, T).max() == pytest.approx(1e5)
    gradient = jax.grad(lambda x: jnp.sum(sid.weights("sid", PROCESS, x, Y_REAL, T)))(X_G)
    np.testing.assert_array_equal(gradient, 0)


def test_unknown_weighting():
    with pytest.raises(ValueError, match=r"sid\.weighting: 'dmd' is not one of sid, snr, "):
        sid.Loss(weighting="dmd")


def test_the_gradient_flows_through_both_networks_and_the_image():
    """The gradient in x_g is the sum of three: x_g in the loss, and x_t in the input of either network."""

    def loss(x_g, x_teacher, x_fake):
        x_t = [PROCESS.corrupt(x, T, NOISE) for x in (x_teacher, x_fake)]
        (real,) = sid.guided(network(TEACHER), x_t[0], T, CONDITION, (GUIDANCE.kappa4,))
        (fake,) = sid.guided(network(FAKE), x_t[1], T, CONDITION, (GUIDANCE.kappa2,))
        y_real, y_fake = PROCESS.to_x0(x_t[0], T, real), PROCESS.to_x0(x_t[1], T, fake)
        w = sid.weights("sid", PROCESS, x_g, y_real, T)
        return jnp.sum(sid.sid_loss(x_g, y_real, y_fake, y_fake, w, 1.2))

    parts = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(X_G, X_G, X_G)
    whole = jax.jit(jax.grad(lambda x: jnp.sum(generator_loss(x)[0])))(X_G)
    assert all(np.linalg.norm(part) > 1e-3 * np.linalg.norm(whole) for part in parts)
    np.testing.assert_allclose(whole, sum(parts), rtol=1e-3, atol=1e-3 * np.abs(whole).max())


GOOD = np.array([0, 2, 3])


def make_bad(where, value):
    """x_g with an entry that is not finite, or the number to be the output of a network, in sample 1."""
    x_g, bad = X_G.copy(), np.zeros(B)
    if where == "x_g":
        x_g[1, 2, 1, 0] = value
        return x_g, None
    bad[1] = value
    return x_g, bad


@pytest.mark.parametrize(("where", "value"), [("x_g", np.nan), ("x_g", np.inf), ("fake", -np.inf), ("fake", np.nan)])
def test_fake_loss_without_a_bad_sample(where, value):
    """Loss and gradient are those of the batch without it."""
    x_g, bad = make_bad(where, value)

    def total(psi, *arguments):
        loss, kept = fake_loss(psi, *arguments)[:2]
        return jnp.sum(loss), kept

    (loss, kept), gradient = jax.value_and_grad(total, has_aux=True)(FAKE, slice(None), x_g, bad)
    (expected, _), wanted = jax.value_and_grad(total, has_aux=True)(FAKE, GOOD)
    assert list(kept) == [True, False, True, True]
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    jax.tree.map(
        lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-3, atol=1e-4 * np.abs(w).max()), gradient, wanted
    )


@pytest.mark.parametrize(
    ("where", "value"), [("x_g", np.nan), ("x_g", -np.inf), ("teacher", np.inf), ("teacher", np.nan), ("fake", np.inf)]
)
def test_generator_loss_without_a_bad_sample(where, value):
    """Loss and gradient are those of the batch without it; its own gradient is zero."""
    x_g, bad = make_bad(where, value)
    bads = {} if bad is None else {f"{where}_bad": bad}

    def total(x_g, *arguments, **bads):
        loss, kept = generator_loss(x_g, *arguments, **bads)[:2]
        return jnp.sum(loss), (loss, kept)

    (_, (loss, kept)), gradient = jax.value_and_grad(total, has_aux=True)(x_g, **bads)
    (_, (expected, _)), wanted = jax.value_and_grad(total, has_aux=True)(X_G[GOOD], GOOD)
    assert list(kept) == [True, False, True, True]
    assert loss[1] == 0
    np.testing.assert_allclose(loss[GOOD], expected, rtol=1e-4)
    np.testing.assert_array_equal(gradient[1], 0)
    np.testing.assert_allclose(gradient[GOOD], wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def test_scales_of_the_fake_network_apart():
    """kappa2 is the scale of the first factor, kappa3 that of the second (SiD-LSG)."""
    guidance = dataclasses.replace(GUIDANCE, kappa2=0.5, kappa3=3.0, kappa4=1.0)
    x_t = PROCESS.corrupt(X_G, T, NOISE)

    def x0(params, kappa):
        (output,) = sid.guided(network(params), x_t, T, CONDITION, (kappa,))
        return PROCESS.to_x0(x_t, T, output)

    y_real, y_fake2, y_fake3 = x0(TEACHER, 1.0), x0(FAKE, 0.5), x0(FAKE, 3.0)
    w = sid.weights("snr", PROCESS, X_G, y_real, T)
    expected = sid.sid_loss(X_G, y_real, y_fake2, y_fake3, w, 1.2)
    numbers = sid.Loss(alpha=1.2, weighting="snr")
    found = sid.generator_loss(network(TEACHER), network(FAKE), PROCESS, X_G, DRAW, CONDITION, guidance, numbers)
    np.testing.assert_allclose(found.loss, expected, rtol=1e-4)
    np.testing.assert_array_equal(found.w, w)
    assert found.logits is None


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_fake_loss_of_a_process(prediction_type):
    """The process's weight times the square of what the output lacks of the process's target, summed over pixels."""
    process = stable_diffusion(prediction_type)
    (output,) = sid.guided(network(FAKE), process.corrupt(X_G, T, NOISE), T, CONDITION, (GUIDANCE.kappa1,))
    weight = process.fake_weight(T)[:, None, None, None]
    expected = np.sum(weight * np.square(output - process.fake_target(X_G, T, NOISE)), axis=(1, 2, 3))
    found = sid.fake_loss(network(FAKE), process, X_G, DRAW, CONDITION, GUIDANCE.kappa1)
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)
    np.testing.assert_array_equal(found.w, weight)


def test_logits_are_asked_for_by_the_condition():
    """A network that is the discriminator too answers with raw logits beside its output, and the loss is the same."""

    def both(x_t, t, cond):
        output, logits = tiny_network.discriminator(FAKE, x_t, t, cond)
        return output, (100 * logits).astype(jnp.bfloat16)

    for sees in (True, False):
        condition = dataclasses.replace(CONDITION, discriminator=sees)
        found = sid.fake_loss(both, PROCESS, X_G, DRAW, condition, GUIDANCE.kappa1)
        np.testing.assert_allclose(found.loss, fake_loss(FAKE).loss, rtol=1e-6)
        cond = COND if sees else jax.tree.map(lambda e: jnp.repeat(e, B, axis=0), EMPTY)
        _, logits = both(PROCESS.corrupt(X_G, T, NOISE), T, cond)
        assert found.logits.dtype == jnp.float32 and np.abs(found.logits).max() > 10
        np.testing.assert_allclose(found.logits, logits.astype(jnp.float32), rtol=1e-2)
        assert found.judged.logits is found.logits and found.judged.kept is found.kept
    with pytest.raises(ValueError, match="there is no discriminator"):
        fake_loss(FAKE).judged  # noqa: B018
