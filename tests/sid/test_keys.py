"""Every draw has a key of its own, from the seed, the step, the purpose and the micro-batch."""

import itertools

import jax
import numpy as np
import pytest

from sid_jax.sid import Purpose, key_for, key_of, seed_words


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
    assert Purpose.FAKE_AUGMENT == 8 and Purpose.REAL_NET == 12


def test_small_seeds_have_the_keys_that_jax_makes_of_them():
    for seed in (0, 1, 12345, 2**31 - 1):
        expected = np.asarray(jax.random.key_data(jax.random.key(seed)))
        assert np.array_equal(jax.random.key_data(key_of(seed)), expected)
        assert np.array_equal(jax.jit(lambda words: jax.random.key_data(key_of(words)))(seed_words(seed)), expected)


def test_all_bits_of_a_seed_count():
    seeds = (5, 2**31, 2**31 + 5, 2**32, 2**32 + 5, 2**63 + 5, 2**64 - 1)
    assert len({bits(seed, 0, Purpose.FAKE_NOISE) for seed in seeds}) == len(seeds)


@pytest.mark.parametrize("seed", [-1, 2**64, 10**30])
def test_what_is_no_seed(seed):
    with pytest.raises(ValueError, match=rf"seed: {seed} is not in \[0, {2**64 - 1}\]"):
        seed_words(seed)


@pytest.mark.parametrize("setting", [{"enable_x64": True}, {"default_prng_impl": "rbg"}])
def test_settings_of_jax_do_not_change_a_key(setting):
    ((name, value),) = setting.items()
    expected = bits(7, 1, Purpose.FAKE_TIME)
    with getattr(jax, name)(value):
        assert bits(7, 1, Purpose.FAKE_TIME) == expected
