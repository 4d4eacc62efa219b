"""What a train step has drawn and found: its draws from their keys, its gradients from its new state."""

import jax
import numpy as np

from sid_jax import sid
from sid_jax.sid import Purpose, key_for


def n_of(settings: sid.Settings, step: int) -> int:
    if settings.num_steps == 1:
        return 1
    return int(jax.random.randint(key_for(settings.seed, step, Purpose.NUM_STEPS), (), 1, settings.num_steps + 1))


def draws_of(settings: sid.Settings, process: sid.VP, step: int) -> dict:
    """What the step draws, over the whole batch, images as [B, C, H, W]: part j holds the samples j, j + parts, ..."""
    parts = settings.accumulation
    size = settings.batch // parts
    shape = (size, *settings.latent_shape)

    def whole(draw):
        batch = np.stack([np.asarray(draw(part)) for part in range(parts)], axis=1)
        return batch.reshape(settings.batch, *batch.shape[2:])

    def images(purpose):
        def draw(part):
            return jax.random.normal(key_for(settings.seed, step, purpose, part), shape)

        return whole(draw).transpose(0, 3, 1, 2).astype(np.float64)

    def steps(purpose):
        def draw(k):
            def of_part(part):
                key = jax.random.fold_in(key_for(settings.seed, step, purpose, part), k)
                return jax.random.normal(key, shape)

            return whole(of_part).transpose(0, 3, 1, 2).astype(np.float64)

        return np.stack([draw(k) for k in range(settings.num_steps)])

    def key(purpose):
        return lambda part: key_for(settings.seed, step, purpose, part)

    dropout = settings.guidance.prompt_dropout
    return {
        "n": n_of(settings, step),
        "fake_z": steps(Purpose.FAKE_STEPS),
        "fake_t": whole(lambda j: process.fake_times(key(Purpose.FAKE_TIME)(j), size)),
        "fake_noise": images(Purpose.FAKE_NOISE),
        "dropped": whole(lambda j: jax.random.bernoulli(key(Purpose.FAKE_DROPOUT)(j), dropout, (size,))),
        "generator_z": steps(Purpose.GENERATOR_STEPS),
        "generator_t": whole(lambda j: process.generator_times(key(Purpose.GENERATOR_TIME)(j), size)),
        "generator_noise": images(Purpose.GENERATOR_NOISE),
    }


def gradients(old, new, moment, beta2):
    """Adam's moment is (1 - beta2) g^2 after one update from zero, and the sign is that of the change."""

    def one(old, new, v):
        return np.sign(np.asarray(old) - np.asarray(new)) * np.sqrt(np.asarray(v, np.float64) / (1 - beta2))

    return jax.tree.map(one, old, new, moment)
