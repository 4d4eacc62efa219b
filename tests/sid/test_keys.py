"""Every draw has a key of its own, from the seed, the step, the purpose and the micro-batch."""

import itertools

import jax
import numpy as np

from sid_jax.sid import Purpose, key_for


def bits(*arguments):
    return tuple(np.asarray(jax.random.key_data(key_for(*arguments))))


def test_no_two_draws_share_a_key():
    draws = list(itertools.product((0, 1), (0, 1, 2), Purpose, (0, 1, 2)))
    assert len({bits(*draw) for draw in draws}) == len(draws)


def test_a_key_depends_on_nothing_else():
    expected = jax.random.key(3)
    for number in (12, Purpose.FAKE_NOISE, 1):
        expected = jax.random.fold_in(expected, int(number))
    assert bits(3, 12, Purpose.FAKE_NOISE, 1) == tuple(np.asarray(jax.random.key_data(expected)))
    traced = jax.jit(lambda step, j: jax.random.key_data(key_for(3, step, Purpose.FAKE_NOISE, micro_batch=j)))(12, 1)
    assert bits(3, 12, Purpose.FAKE_NOISE, 1) == tuple(np.asarray(traced))


def test_purposes_keep_their_numbers():
    assert [purpose.value for purpose in Purpose] == list(range(len(Purpose)))
    assert Purpose.NUM_STEPS == 0 and Purpose.GENERATOR_NOISE == 7
