"""A whole iteration: reproducible, safe against NaN, and no more network evaluations than the method needs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_network
from processes import stable_diffusion

from sid_jax import sid

B = 4
SHAPE = (4, 4, tiny_network.CHANNELS)
PROCESS = stable_diffusion()
FEW_STEP, ONE_STEP, TIMES = sid.FewStep(PROCESS, 4, 999), sid.FewStep(PROCESS, 1, 625), sid.Uniform()
OPTIMIZER = sid.Optimizer(fake_lr=1e-3, generator_lr=1e-3)
SETTINGS = sid.Settings(batch=B, shape=SHAPE, guidance=sid.preset("lsg", 1.5), optimizer=OPTIMIZER)
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def poisonable(params, x, t, cond, dropout_key):
    """The tiny network with the ways to fail that real ones have, each switched by a parameter.

    `overflow`: the output of samples whose first token is 1 is infinite, and so is its derivative.
    `root`: a parameter at 0 whose derivative is infinite.
    """
    output = tiny_network.denoiser(params, x, t, cond) + jnp.sqrt(params["root"]) - jnp.sqrt(params["root"])
    marked = jnp.all(cond["text"][:, 0] == 1, axis=-1)[:, None, None, None]
    return output * jnp.where(marked & (params["overflow"] > 0), jnp.inf, 1.0)


def parameters(**changes):
    return tiny_network.init(0) | {"root": np.float32(1.0), "overflow": np.float32(0.0)} | changes


def batch_of(marked=()):
    """Embeddings, precomputed: the default `encode_condition` passes them on."""
    rng = np.random.default_rng(1)

    def cond(size):
        text = rng.normal(size=(size, tiny_network.LENGTH, tiny_network.TEXT)).astype(np.float32)
        return {"text": text, "pooled": text.max(axis=1)}

    batch = sid.Batch(fake=cond(B), generator=cond(B), empty=cond(1))
    for read in (batch.fake, batch.generator):
        for sample in marked:
            read["text"][sample, 0] = 1
    return batch


@pytest.fixture(scope="module")
def step():
    return compiled(FEW_STEP, SETTINGS)


def compiled(few_step, settings, network=poisonable):
    return sid.jit_train_step(sid.Networks(network), few_step, TIMES, settings, compiler_options=QUICK)


def run(step, steps=1, teacher=None, batch=None, **changes):
    state = sid.TrainState.create(parameters())
    state = dataclasses.replace(state, **{k: jax.tree.map(jnp.asarray, v) for k, v in changes.items()})
    frozen = sid.Frozen(teacher or parameters())
    for _ in range(steps):
        state, metrics = step(state, frozen, batch or batch_of())
    return state, {name: float(value) for name, value in metrics.items()}


def assert_finite(state):
    for path, leaf in jax.tree.leaves_with_path(state):
        assert np.isfinite(leaf).all(), path


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_state_at_step_0_is_three_copies_of_the_teacher():
    teacher = jax.tree.map(lambda p: jnp.asarray(p, jnp.bfloat16), parameters())
    state = sid.TrainState.create(teacher)
    for name in ("generator", "fake", "ema"):
        assert_equal(getattr(state, name), jax.tree.map(lambda p: p.astype(jnp.float32), teacher))
    leaves = jax.tree.leaves(state)
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    counts = (state.step, state.generator_optimizer.count, state.fake_optimizer.count)
    assert all(leaf.dtype == jnp.float32 for leaf in leaves if not any(leaf is count for count in counts))
    assert all(count.dtype == jnp.int32 for count in counts)


def test_the_state_keeps_its_types():
    """With networks, a teacher and text in bfloat16, everything that is trained or reported stays float32."""

    def denoiser(params, x, t, cond, dropout_key):
        params, x, cond = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), (params, x, cond))
        return tiny_network.denoiser(params, x, t, cond).astype(jnp.bfloat16)

    half = jax.tree.map(lambda p: jnp.asarray(p, jnp.bfloat16), tiny_network.init(0))
    batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), batch_of())
    few_step, settings = dataclasses.replace(FEW_STEP, noise="ddim"), dataclasses.replace(SETTINGS, accumulation=2)
    state = jax.eval_shape(sid.TrainState.create, half)
    step = sid.make_train_step(sid.Networks(denoiser), few_step, TIMES, settings)
    new, metrics = jax.eval_shape(step, state, sid.Frozen(half), batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), new) == jax.tree.map(
        lambda x: (x.shape, x.dtype, x.weak_type), state
    )
    assert all(value.shape == () and value.dtype == jnp.float32 for value in metrics.values())


def test_the_same_seed_twice_is_equal_to_the_bit(step):
    one, other = run(step, 4), run(step, 4)
    assert_equal(one[0], other[0])
    assert one[1] == other[1]


def test_a_resumed_run_is_equal_to_the_bit(step):
    whole, metrics = run(step, 4)
    half, _ = run(step, 2)
    frozen = sid.Frozen(parameters())
    for _ in range(2):
        half, again = step(half, frozen, batch_of())
    assert_equal(whole, half)
    assert metrics == {name: float(value) for name, value in again.items()}


def test_metrics(step):
    state, metrics = run(step, 3)
    assert int(state.step) == 3
    assert set(metrics) == {
        *("fake_loss", "generator_loss", "fake_grad_norm", "generator_grad_norm"),
        *("dropped_fake", "dropped_generator", "nonfinite_grads", "n", "ema_beta"),
        *("teacher_fake_gap", "generator_teacher_gap"),
    }
    assert metrics["dropped_fake"] == metrics["dropped_generator"] == metrics["nonfinite_grads"] == 0
    assert metrics["n"] in (1, 2, 3, 4)
    assert metrics["ema_beta"] == pytest.approx(0.5 ** (B / (0.05 * 2 * B)), rel=1e-5)


def constant(params, x, t, cond, dropout_key):
    """x0 is a parameter; that of samples whose first token is 1 is not finite where `overflow` says so."""
    marked = jnp.all(cond["text"][:, 0] == 1, axis=-1) & (params["overflow"] > 0)
    return jnp.where(marked, jnp.inf, params["x0"])[:, None, None, None] + jnp.zeros_like(x)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_gaps_are_means_over_the_samples_that_are_not_left_out(accumulation):
    """And over all micro-batches: of a process whose networks give x0, |difference of two parameters|."""
    process = sid.EDM()
    settings = dataclasses.replace(SETTINGS, guidance=sid.preset("none"), accumulation=accumulation)
    step = sid.jit_train_step(
        sid.Networks(constant), sid.FewStep(process, 1, 2.5), sid.LogNormalKarras(), settings, compiler_options=QUICK
    )
    params = {"x0": jnp.float32(0.5), "overflow": jnp.float32(0)}
    state = dataclasses.replace(sid.TrainState.create(params), generator={**params, "x0": jnp.float32(-0.25)})
    for teacher, dropped in ((0, 0), (1, 3)):
        frozen = sid.Frozen({**params, "overflow": jnp.float32(teacher)})
        new, metrics = step(jax.tree.map(jnp.copy, state), frozen, batch_of(marked=[0, 1, 2]))
        assert metrics["dropped_generator"] == dropped
        assert metrics["generator_teacher_gap"] == pytest.approx(0.75, rel=1e-5)
        assert metrics["teacher_fake_gap"] == pytest.approx(abs(0.5 - float(new.fake["x0"])), rel=1e-3) != 0


def test_the_first_average_is_the_generator(step):
    state, metrics = run(step)
    assert metrics["ema_beta"] == 0
    assert_equal(state.ema, state.generator)


def test_every_n_is_drawn(step):
    state = sid.TrainState.create(parameters())
    drawn = set()
    for _ in range(30):
        state, metrics = step(state, sid.Frozen(parameters()), batch_of())
        drawn.add(int(metrics["n"]))
    assert drawn == {1, 2, 3, 4}


def test_a_sample_whose_teacher_overflows(step):
    """It is counted and left out, and although its derivative is NaN, no entry of the gradient is."""
    state, metrics = run(step, teacher=parameters(overflow=np.float32(1)), batch=batch_of(marked=[1]))
    assert (metrics["dropped_fake"], metrics["dropped_generator"], metrics["nonfinite_grads"]) == (0, 1, 0)
    assert metrics["generator_grad_norm"] > 0
    assert_finite(state)


def test_samples_that_the_generator_does_not_make_finite(step):
    """x_g itself is infinite: left out of both losses. The fake network still gets a clean gradient."""
    generator = parameters(overflow=np.float32(1))
    state, metrics = run(step, generator=generator, batch=batch_of(marked=[0, 3]))
    assert (metrics["dropped_fake"], metrics["dropped_generator"]) == (2, 2)
    clean, expected = run(step, batch=batch_of(marked=[0, 3]))
    assert 0 < metrics["fake_grad_norm"] < 10 * expected["fake_grad_norm"]
    assert_finite(state)
    assert_finite(clean)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("update", ["fake", "generator"])
def test_embeddings_that_are_not_finite(step, update, value):
    """The sample is counted and left out of its update; the state stays finite, and the other update is a usual one."""
    batch = batch_of()
    getattr(batch, update)["text"][2] = value
    state, metrics = run(step, batch=batch)
    other = {"fake": "generator", "generator": "fake"}[update]
    assert (metrics[f"dropped_{update}"], metrics[f"dropped_{other}"]) == (1, 0)
    assert np.isfinite(metrics["fake_loss"]) and np.isfinite(metrics["generator_loss"])
    assert metrics[f"{other}_grad_norm"] > 0
    assert_finite(state)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_fake_network_that_is_not_finite(step, value):
    """Every sample of both updates is counted, and the generator is left as it was."""
    state, metrics = run(step, fake=parameters(bias_out=np.full(3, value, np.float32)))
    assert metrics["dropped_fake"] == metrics["dropped_generator"] == B
    assert_equal(state.generator, jax.tree.map(jnp.asarray, parameters()))
    assert_finite(state.ema)


def test_a_whole_batch_that_is_not_finite(step):
    state, metrics = run(step, 2, teacher=parameters(bias_out=np.full(3, np.nan, np.float32)))
    assert metrics["dropped_generator"] == B
    assert metrics["generator_loss"] == metrics["generator_grad_norm"] == 0
    assert_finite(state)
    assert_equal(state.generator, jax.tree.map(jnp.asarray, parameters()))


def test_entries_of_a_gradient_that_are_not_finite(step):
    """The derivative of a square root at 0: counted, and nothing that is not finite enters the state."""
    state, metrics = run(step, 2, fake=parameters(root=np.float32(0)))
    assert metrics["nonfinite_grads"] == 1
    assert metrics["dropped_fake"] == metrics["dropped_generator"] == 0
    assert_finite(state)


def test_a_loss_that_overflows(step):
    """Predictions are finite, their product is not: the metrics say so, and the state stays finite."""
    state, metrics = run(step, fake=parameters(bias_out=np.full(3, 1e30, np.float32)))
    assert not np.isfinite(metrics["fake_loss"]) and not np.isfinite(metrics["generator_loss"])
    assert metrics["dropped_fake"] == metrics["dropped_generator"] == 0
    assert metrics["nonfinite_grads"] > 0
    assert_finite(state)


def test_the_generators_update_leaves_the_fake_network_alone(step):
    """B has no gradient for psi or phi: whatever the generator's loss is scaled by, the fake network is the same."""
    scaled = compiled(FEW_STEP, dataclasses.replace(SETTINGS, loss=sid.Loss(loss_scale=100.0)))
    teacher = parameters(bias_out=np.full(3, 0.3, np.float32))
    one, small = run(step, teacher=teacher)
    other, large = run(scaled, teacher=teacher)
    assert large["generator_loss"] == pytest.approx(100 * small["generator_loss"], rel=1e-4)
    assert large["generator_grad_norm"] == pytest.approx(100 * small["generator_grad_norm"], rel=1e-4)
    for name in ("fake", "fake_optimizer"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12),
            getattr(one, name),
            getattr(other, name),
        )


def test_clipping_limits_what_adam_sees():
    clipped = dataclasses.replace(OPTIMIZER, clip_value=1e-3)
    state, metrics = run(compiled(ONE_STEP, dataclasses.replace(SETTINGS, optimizer=clipped)))
    assert metrics["fake_grad_norm"] > 1
    largest = max(float(v.max()) for v in jax.tree.leaves((state.fake_optimizer.nu, state.generator_optimizer.nu)))
    assert largest == pytest.approx((1 - clipped.beta2) * 1e-6, rel=1e-3)


class Evaluations:
    """Counts, at run time, how many images the network has seen in forward passes."""

    def __init__(self):
        self.images = 0

    def denoiser(self, params, x, t, cond, dropout_key):
        assert dropout_key is None
        jax.debug.callback(lambda: setattr(self, "images", self.images + len(x)))
        return x * params["w"] + cond[:, None, None, :]


@pytest.mark.parametrize(
    ("strategy", "g1", "g23", "g4"), [("none", 1, 1, 1), ("lsg", 2, 2, 2), ("zero_cfg", 1, 1, 1), ("anti_cfg", 2, 2, 1)]
)
def test_forward_passes(strategy, g1, g23, g4):
    """A = n + g1 and B = n + g23 + g4 forward passes, for every n: the loop evaluates nothing for nothing."""
    settings = dataclasses.replace(SETTINGS, guidance=sid.preset(strategy))
    evaluations = Evaluations()
    step = compiled(FEW_STEP, settings, evaluations.denoiser)
    params = {"w": np.full(3, 0.9, np.float32)}
    cond = np.zeros((B, 3), np.float32)
    batch = sid.Batch(fake=cond, generator=cond, empty=cond[:1])
    state = sid.TrainState.create(params)
    for _ in range(6):
        evaluations.images = 0
        state, metrics = step(state, sid.Frozen(params), batch)
        jax.effects_barrier()
        n = int(metrics["n"])
        assert evaluations.images == B * ((n + g1) + (n + g23 + g4))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_each_pass_is_traced_once(accumulation):
    """Of a large network that takes seconds; parts of a batch, which all are computed alike, are one trace."""
    traced = []

    def denoiser(params, x, t, cond, dropout_key):
        traced.append(len(x))
        return x * params["w"] + cond[:, None, None, :]

    settings = dataclasses.replace(SETTINGS, guidance=sid.preset("none"), accumulation=accumulation)
    step = sid.make_train_step(sid.Networks(denoiser), ONE_STEP, TIMES, settings)
    params, cond = {"w": jnp.ones(3)}, jnp.zeros((B, 3))
    state = jax.eval_shape(sid.TrainState.create, params)
    jax.eval_shape(step, state, sid.Frozen(params), sid.Batch(fake=cond, generator=cond, empty=cond[:1]))
    assert traced == [B // accumulation] * 5  # A: generator and fake network; B: these two and the teacher


@pytest.mark.parametrize(("strategy", "passes"), [("lsg", 18), ("zero_cfg", 11)])
def test_cost_of_a_compiled_step(strategy, passes):
    """FLOPs of the compiled step with n = 1, in forward passes: A = n + 3 g1, B = n + 2 + 2 g23 + 2 g4 (section 8).

    The network is a stack of matrix products. A backward pass needs no derivative by the input of the first layer where
    only parameters are trained, so that the compiled step is allowed to be below the floor by that.
    """
    layers, width, batch = 8, 512, 256

    def denoiser(params, x, t, cond, dropout_key):
        h = x.reshape(len(x), width)
        for layer in range(layers):
            h = h @ params["w"][layer]
        return h.reshape(x.shape)

    settings = dataclasses.replace(SETTINGS, batch=batch, shape=(8, 8, 8), guidance=sid.preset(strategy))
    params = {"w": jax.ShapeDtypeStruct((layers, width, width), jnp.float32)}
    inputs = sid.Batch(fake=jnp.zeros((batch, 3)), generator=jnp.zeros((batch, 3)), empty=jnp.zeros((1, 3)))
    step = sid.jit_train_step(sid.Networks(denoiser), ONE_STEP, TIMES, settings)
    state = jax.eval_shape(sid.TrainState.create, params)
    flops = step.lower(state, sid.Frozen(params), inputs).compile().cost_analysis()["flops"]
    measured = flops / (2 * batch * layers * width * width)
    assert passes - 0.5 < measured < passes + 0.1
