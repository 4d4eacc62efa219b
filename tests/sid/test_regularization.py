"""Where networks drop out and images are augmented: in update A the fake network's, in update B the generator's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sid_jax import sid
from sid_jax.sid import Purpose, key_for

B = 4
SHAPE = (2, 2, 3)
FEW_STEP = sid.FewStep(sid.EDM(), 1, 2.5)
SETTINGS = sid.Settings(B, SHAPE, seed=7, loss=sid.Loss(loss_scale=100.0))
STEP = 3


class Recorder:
    """A network, and an augmentation, that note what they are called with; all images are drawn apart by the latter."""

    def __init__(self):
        self.calls, self.augmented = [], []

    def discriminator(self, params, x, t, cond, dropout_key):
        generates = not isinstance(t, jax.core.Tracer) and float(t[0]) == 2.5
        self.calls.append((words(dropout_key), "told" in cond, generates))
        return x * params["w"], x.mean(axis=-1)

    def denoiser(self, params, x, t, cond, dropout_key):
        return self.discriminator(params, x, t, cond, dropout_key)[0]

    def augment(self, key, images, cond):
        self.augmented.append(words(key))
        return images + 1, {**cond, "told": jnp.ones(len(images))}


def words(key):
    """The numbers of a key, which are unknown while the shapes of a loop's results are found out."""
    if key is None or isinstance(key, jax.core.Tracer):
        return None
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def purposed(purpose, micro_batch=0):
    return words(key_for(SETTINGS.seed, STEP, purpose, micro_batch))


def calls_of(gan=False, accumulation=1, on=True):
    """Of an iteration, one operation after the other: micro-batches are a loop then, whose index is a number."""
    recorder = Recorder()
    networks = sid.Networks(recorder.denoiser, discriminator=recorder.discriminator)
    if on:
        networks = dataclasses.replace(networks, augment=recorder.augment, drops_out=True)
    term = sid.Gan(1.0, 0.01, form="sida") if gan else sid.Gan()
    settings = dataclasses.replace(SETTINGS, gan=term, accumulation=accumulation)
    params, cond = {"w": np.float32(0.9)}, {"class_labels": np.arange(B)}
    state = dataclasses.replace(sid.TrainState.create(params), step=jnp.int32(STEP))
    real = sid.Real(np.zeros((B, *SHAPE), np.float32), cond)
    batch = sid.Batch(cond, cond, {"class_labels": np.array([-1])}, real)
    with jax.disable_jit():
        sid.make_train_step(networks, FEW_STEP, sid.LogNormalKarras(), settings)(state, sid.Frozen(params), batch)
    return recorder


def test_an_iteration_of_sid():
    """The generator's images without dropout, the fake network with it; then the generator with, and two without."""
    recorder = calls_of()
    assert recorder.calls == [
        (None, False, True),
        (purposed(Purpose.FAKE_NET), True, False),
        (purposed(Purpose.GENERATOR_NET), False, True),
        (None, False, False),
        (None, False, False),
    ]
    assert recorder.augmented == [purposed(Purpose.FAKE_AUGMENT)]


def test_real_images_have_draws_of_their_own():
    recorder = calls_of(gan=True)
    assert recorder.calls[1:3] == [
        (purposed(Purpose.FAKE_NET), True, False), (purposed(Purpose.REAL_NET), True, False),
    ]  # fmt: skip
    assert [key for key, *_ in recorder.calls[3:]] == [purposed(Purpose.GENERATOR_NET), None, None]
    assert recorder.augmented == [purposed(Purpose.FAKE_AUGMENT), purposed(Purpose.REAL_AUGMENT)]


def test_each_micro_batch_has_draws_of_its_own():
    recorder = calls_of(accumulation=2)
    keys = {key for key, *_ in recorder.calls if key}
    purposes = (Purpose.FAKE_NET, Purpose.GENERATOR_NET)
    assert keys >= {purposed(purpose, number) for purpose in purposes for number in (0, 1)}
    assert set(recorder.augmented) >= {purposed(Purpose.FAKE_AUGMENT, number) for number in (0, 1)}


@pytest.mark.parametrize("gan", [False, True])
def test_where_they_are_off_nothing_is_drawn(gan):
    recorder = calls_of(gan, on=False)
    assert all(key is None and not told for key, told, _ in recorder.calls)
    assert recorder.augmented == []


def test_a_student_to_start_from():
    """Generator and average begin as it, the fake network as the teacher."""
    state = sid.TrainState.create({"w": np.float32(1)}, student={"w": np.float32(2)})
    assert (float(state.fake["w"]), float(state.generator["w"]), float(state.ema["w"])) == (1, 2, 2)
