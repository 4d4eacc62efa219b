"""One iteration of Score identity Distillation: A, B and C of section 5 (SiD-LSG, arXiv 2406.01561)."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sid_jax.sid.adam import AdamState, adam, clip, sanitize
from sid_jax.sid.ema import ema_beta, ema_update
from sid_jax.sid.forward_process import ForwardProcess
from sid_jax.sid.generator import FewStep, noise_from_key
from sid_jax.sid.guidance import drop_prompts
from sid_jax.sid.keys import Purpose, key_for
from sid_jax.sid.losses import fake_loss, generator_loss
from sid_jax.sid.state import Networks, Settings, TrainState


def make_train_step(networks: Networks, process: ForwardProcess, settings: Settings) -> Callable:
    """The function of one iteration, `step(state, frozen, batch) -> (state, metrics)`; it is pure, and not jitted.

    frozen: `{"teacher": params, "text": text_params}`.
    batch: `{"fake": tokens, "generator": tokens, "empty": tokens}`, trees of arrays whose first axis is the batch; that
      of "empty" is 1. The two updates have prompts of their own.
    metrics: float32 scalars. `fake_loss`, `generator_loss`; `fake_grad_norm`, `generator_grad_norm`: of the gradients
      without non-finite entries, before clipping; `dropped_fake`, `dropped_generator`: samples left out of a loss;
      `nonfinite_grads`: entries of both gradients; `n`: steps drawn; `ema_beta`.

    Raises:
      ValueError: settings that do not fit the process.
    """
    few_step = FewStep(process, settings.num_steps, settings.t_init, settings.noise)
    updates = _Updates(networks, process, settings, few_step)

    def step(state: TrainState, frozen: dict, batch: dict) -> tuple[TrainState, dict]:
        n = 1
        if settings.num_steps > 1:
            key = key_for(settings.seed, state.step, Purpose.NUM_STEPS)
            n = jax.random.randint(key, (), 1, settings.num_steps + 1, jnp.int32)
        empty = networks.encode(frozen["text"], batch["empty"])

        # A. The fake network learns to denoise what the generator makes.
        fake, fake_moment, of_fake = updates.fake(state, frozen, batch["fake"], empty, n)

        # B. The generator learns from the teacher and from the fake network as it is after A.
        generator, generator_moment, of_generator = updates.generator(state, fake, frozen, batch["generator"], empty, n)

        # C. The moving average of the generator.
        images_seen = state.step.astype(jnp.float32) * settings.batch
        beta = ema_beta(settings.half_life, settings.ramp_up, images_seen, settings.batch)
        ema = ema_update(state.ema, generator, beta)

        metrics = {
            "fake_loss": of_fake["loss"],
            "generator_loss": of_generator["loss"],
            "fake_grad_norm": of_fake["grad_norm"],
            "generator_grad_norm": of_generator["grad_norm"],
            "dropped_fake": of_fake["dropped"],
            "dropped_generator": of_generator["dropped"],
            "nonfinite_grads": of_fake["nonfinite_grads"] + of_generator["nonfinite_grads"],
            "n": jnp.asarray(n, jnp.float32),
            "ema_beta": beta,
        }
        return TrainState(state.step + 1, generator, generator_moment, fake, fake_moment, ema), metrics

    return step


def jit_train_step(networks: Networks, process: ForwardProcess, settings: Settings, **jit_options) -> Callable:
    """`make_train_step`, compiled: the old state is donated to the new one. `jit_options` are those of `jax.jit`."""
    return jax.jit(make_train_step(networks, process, settings), donate_argnums=0, **jit_options)


@dataclass(frozen=True)
class _Updates:
    """Updates A and B: draw, evaluate the loss and its gradient part by part, take one step of Adam."""

    networks: Networks
    process: ForwardProcess
    settings: Settings
    few_step: FewStep

    def fake(self, state: TrainState, frozen: dict, tokens: Any, empty: Any, n: int | jax.Array):
        """A: (psi, its moment, metrics)."""
        s = self.settings

        def part_gradient(part, tokens):
            cond = self.networks.encode(frozen["text"], tokens)
            key = functools.partial(key_for, s.seed, state.step, part=part)
            z = noise_from_key(key(Purpose.FAKE_STEPS), self._shape)
            x_g, _ = self.few_step.first_evaluations(self._network(state.generator), z, cond, n)

            t = self.process.fake_times(key(Purpose.FAKE_TIME), self._shape[0])
            noise = jax.random.normal(key(Purpose.FAKE_NOISE), self._shape, jnp.float32)
            if s.guidance.prompt_dropout > 0:
                dropped = jax.random.bernoulli(key(Purpose.FAKE_DROPOUT), s.guidance.prompt_dropout, self._shape[:1])
                cond = drop_prompts(dropped, cond, empty)

            def loss(psi):
                values, kept = fake_loss(
                    self._network(psi), self.process, x_g, t, noise, cond, empty, s.guidance.kappa1
                )
                return jnp.sum(values) / s.batch, jnp.sum(~kept, dtype=jnp.float32)

            return jax.value_and_grad(loss, has_aux=True)(state.fake)

        (loss, dropped), gradients = _sum_over_parts(part_gradient, tokens, s.accumulation)
        return self._adam_step(s.lr, state.step, state.fake, state.fake_moment, gradients, loss, dropped)

    def generator(self, state: TrainState, fake: Any, frozen: dict, tokens: Any, empty: Any, n: int | jax.Array):
        """B: (theta, its moment, metrics)."""
        s = self.settings

        def part_gradient(part, tokens):
            cond = self.networks.encode(frozen["text"], tokens)
            key = functools.partial(key_for, s.seed, state.step, part=part)
            z = noise_from_key(key(Purpose.GENERATOR_STEPS), self._shape)
            before = self.few_step.first_evaluations(self._network(state.generator), z, cond, n - 1)

            def last_evaluation(theta):
                return self.few_step.evaluate(self._network(theta), z, cond, n - 1, *before)[0]

            t = self.process.generator_times(key(Purpose.GENERATOR_TIME), self._shape[0])
            noise = jax.random.normal(key(Purpose.GENERATOR_NOISE), self._shape, jnp.float32)
            f_phi, f_psi = self._network(frozen["teacher"]), self._network(fake)

            def loss(x_g):
                values, kept = generator_loss(
                    f_phi, f_psi, self.process, x_g, t, noise, cond, empty, s.guidance, s.alpha, s.weighting
                )
                return s.loss_scale * jnp.sum(values) / s.batch, kept

            # The chain rule in two links, theta -> x_g -> loss. Between them a sample that is left out is cut off: the
            # derivative of a network that overflowed is NaN, also where it is multiplied by zero.
            x_g, pull_back = jax.vjp(last_evaluation, state.generator)
            (value, kept), of_images = jax.value_and_grad(loss, has_aux=True)(x_g)
            (gradient,) = pull_back(jnp.where(kept[:, None, None, None], of_images, 0))
            return (value, jnp.sum(~kept, dtype=jnp.float32)), gradient

        (loss, dropped), gradients = _sum_over_parts(part_gradient, tokens, s.accumulation)
        return self._adam_step(s.glr, state.step, state.generator, state.generator_moment, gradients, loss, dropped)

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self.settings.batch // self.settings.accumulation, *self.settings.latent_shape)

    def _network(self, params: Any) -> Callable:
        return functools.partial(self.networks.unet, params)

    def _adam_step(self, learning_rate, count, params, moment, gradients, loss, dropped):
        gradients, nonfinite = sanitize(gradients)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(gradients),
            "dropped": dropped,
            "nonfinite_grads": nonfinite,
        }
        optimizer = adam(learning_rate, self.settings.beta2, self.settings.eps)
        gradients = clip(gradients, self.settings.clip_value)
        updates, (_, moment) = optimizer.update(gradients, AdamState(count, moment))
        return optax.apply_updates(params, updates), moment, metrics


def _sum_over_parts(function: Callable, tokens: Any, parts: int):
    """The sum of `function(part, tokens of the part)` over the micro-batches of a batch, one after the other.

    Part j holds the samples j, j + parts, ...: a batch that is split over devices is then split over all of them in
    every part, without a transfer.
    """
    if parts == 1:
        return function(0, tokens)
    tokens = jax.tree.map(lambda x: x.reshape(len(x) // parts, parts, *x.shape[1:]).swapaxes(0, 1), tokens)
    result = jax.eval_shape(function, 0, jax.tree.map(lambda x: x[0], tokens))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), result)

    def add(total, part):
        return jax.tree.map(jnp.add, total, function(*part)), None

    return jax.lax.scan(add, zeros, (jnp.arange(parts), tokens))[0]
