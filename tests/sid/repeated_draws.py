"""What a train step has drawn and found: its draws from their keys, its gradients from its new state."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sid_jax import sid
from sid_jax.sid import Purpose, key_for


def n_of(settings: sid.Settings, few_step: sid.FewStep, step: int) -> int:
    if few_step.num_steps == 1:
        return 1
    return int(jax.random.randint(key_for(settings.seed, step, Purpose.NUM_STEPS), (), 1, few_step.num_steps + 1))


def draws_of(settings: sid.Settings, few_step: sid.FewStep, times: sid.Times, step: int) -> dict:
    """What the step draws, over the whole batch, images as [B, C, H, W].

    Micro-batch j holds the samples j, j + accumulation, ...
    """
    micro_batches = settings.accumulation
    size = settings.batch // micro_batches
    shape = (size, *settings.shape)

    def whole(draw):
        batch = np.stack([np.asarray(draw(j)) for j in range(micro_batches)], axis=1)
        return batch.reshape(settings.batch, *batch.shape[2:])

    def images(purpose):
        def draw(j):
            return jax.random.normal(key_for(settings.seed, step, purpose, j), shape)

        return whole(draw).transpose(0, 3, 1, 2).astype(np.float64)

    def steps(purpose):
        def draw(k):
            def of_micro_batch(j):
                key = jax.random.fold_in(key_for(settings.seed, step, purpose, j), k)
                return jax.random.normal(key, shape)

            return whole(of_micro_batch).transpose(0, 3, 1, 2).astype(np.float64)

        return np.stack([draw(k) for k in range(few_step.num_steps)])

    def key(purpose):
        return lambda j: key_for(settings.seed, step, purpose, micro_batch=j)

    dropout = settings.guidance.prompt_dropout
    return {
        "n": n_of(settings, few_step, step),
        "fake_z": steps(Purpose.FAKE_STEPS),
        "fake_t": whole(lambda j: times.fake(key(Purpose.FAKE_TIME)(j), size)),
        "fake_noise": images(Purpose.FAKE_NOISE),
        "dropped": whole(lambda j: jax.random.bernoulli(key(Purpose.FAKE_DROPOUT)(j), dropout, (size,))),
        "generator_z": steps(Purpose.GENERATOR_STEPS),
        "generator_t": whole(lambda j: times.generator(key(Purpose.GENERATOR_TIME)(j), size)),
        "generator_noise": images(Purpose.GENERATOR_NOISE),
    }


def gradients(old, new, moment, beta2):
    """Adam's moment is (1 - beta2) g^2 after one update from zero, and the sign is that of the change."""

    def one(old, new, v):
        return np.sign(np.asarray(old) - np.asarray(new)) * np.sqrt(np.asarray(v, np.float64) / (1 - beta2))

    return jax.tree.map(one, old, new, moment)


def at_update(state, number):
    """The state as it is before update `number`: what was trained so far counts in Adam too."""
    return dataclasses.replace(
        state,
        step=jnp.int32(number),
        generator_optimizer=state.generator_optimizer._replace(count=jnp.int32(number)),
        fake_optimizer=state.fake_optimizer._replace(count=jnp.int32(number)),
    )
