"""One iteration of Score identity Distillation: A, B and C of section 5 (SiD-LSG, arXiv 2406.01561).

Where there are real images, A and B each have a further term, that of section 6.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sid_jax.sid import gan
from sid_jax.sid.adam import AdamState, adam, clip, sanitize
from sid_jax.sid.ema import ema_beta, ema_update
from sid_jax.sid.few_step import FewStep, noise_from_key
from sid_jax.sid.guidance import drop_prompts, of_empty
from sid_jax.sid.keys import Purpose, key_for
from sid_jax.sid.losses import fake_loss, generator_loss
from sid_jax.sid.process import ForwardProcess
from sid_jax.sid.state import Networks, Phase, Settings, TrainState


def make_train_step(networks: Networks, process: ForwardProcess, settings: Settings) -> Callable:
    """The function of one iteration, `step(state, frozen, batch, phase) -> (state, metrics)`; it is pure, not jitted.

    frozen: `{"teacher": params, "text": text_params}`, and `"vae": vae_params` where images are encoded in the step.
    batch: `{"fake": tokens, "generator": tokens, "empty": tokens}`, trees of arrays whose first axis is the batch; that
      of "empty" is 1. The two updates have prompts of their own. With the GAN term also `"real": {"images": images or
      latents, "tokens": their captions'}`.
    phase: `settings.phase(step number)`, static; by default `settings.last_phase`.
    metrics: float32 scalars. `fake_loss`, `generator_loss`; `fake_grad_norm`, `generator_grad_norm`: of the gradients
      without non-finite entries, before clipping; `dropped_fake`, `dropped_generator`: samples left out of a loss;
      `nonfinite_grads`: entries of both gradients; `n`: steps drawn; `ema_beta`. With the GAN term, which the losses
      above do not contain: `discriminator_loss`, `adversarial_loss`, means of the cross entropies; `real_logit`,
      `fake_logit`, means of D; `dropped_real`. While the generator is frozen, what is of its update is 0, and
      `ema_beta` 1.

    Raises:
      ValueError: settings that do not fit the process.
    """
    few_step = FewStep(process, settings.num_steps, settings.t_init, settings.noise)
    updates = _Updates(networks, process, settings, few_step)
    if settings.gan.lambda_d and networks.unet_with_bottleneck is None:
        raise ValueError("gan.lambda_d: the GAN term needs a UNet that returns its bottleneck")

    def step(
        state: TrainState, frozen: dict, batch: dict, phase: Phase = settings.last_phase
    ) -> tuple[TrainState, dict]:
        n = 1
        if settings.num_steps > 1:
            key = key_for(settings.seed, state.step, Purpose.NUM_STEPS)
            n = jax.random.randint(key, (), 1, settings.num_steps + 1, jnp.int32)
        empty = networks.encode(frozen["text"], batch["empty"])

        # A. The fake network learns to denoise what the generator makes.
        fake, fake_moment, of_fake = updates.fake(state, frozen, batch["fake"], batch.get("real"), empty, n)

        if phase.generator:
            # B. The generator learns from the teacher and from the fake network as it is after A.
            generator, generator_moment, of_generator = updates.generator(
                state, fake, frozen, batch["generator"], empty, n, phase.adversarial
            )
            # C. The moving average of the generator.
            images_seen = updates.generator_steps(state).astype(jnp.float32) * settings.batch
            beta = ema_beta(settings.half_life, settings.ramp_up, images_seen, settings.batch)
            ema = ema_update(state.ema, generator, beta)
        else:
            generator, generator_moment, ema, beta = state.generator, state.generator_moment, state.ema, jnp.float32(1)
            of_generator = {name: jnp.float32(0) for name in ("loss", "grad_norm", "dropped", "nonfinite_grads")}

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
        if settings.gan.lambda_d:
            metrics |= {name: of_fake[name] for name in ("discriminator_loss", "real_logit", "fake_logit")}
            metrics["dropped_real"] = of_fake["dropped_real"]
            metrics["adversarial_loss"] = of_generator.get("adversarial_loss", jnp.float32(0))
        return TrainState(state.step + 1, generator, generator_moment, fake, fake_moment, ema), metrics

    return step


def jit_train_step(networks: Networks, process: ForwardProcess, settings: Settings, **jit_options) -> Callable:
    """`make_train_step`, compiled, once for each phase: the old state is donated to the new one.

    `jit_options` are those of `jax.jit`.
    """
    return jax.jit(make_train_step(networks, process, settings), donate_argnums=0, static_argnums=3, **jit_options)


@dataclass(frozen=True)
class _Updates:
    """Updates A and B: draw, evaluate the loss and its gradient part by part, take one step of Adam."""

    networks: Networks
    process: ForwardProcess
    settings: Settings
    few_step: FewStep

    def fake(self, state: TrainState, frozen: dict, tokens: Any, real: Any, empty: Any, n: int | jax.Array):
        """A: (psi, its moment, metrics)."""
        s = self.settings

        def part_gradient(part, inputs):
            cond = self.networks.encode(frozen["text"], inputs["tokens"])
            key = functools.partial(key_for, s.seed, state.step, part=part)
            z = noise_from_key(key(Purpose.FAKE_STEPS), self._shape)
            x_g, _ = self.few_step.first_evaluations(self._network(state.generator), z, cond, n)

            t = self.process.fake_times(key(Purpose.FAKE_TIME), self._shape[0])
            noise = jax.random.normal(key(Purpose.FAKE_NOISE), self._shape, jnp.float32)
            dropped = None
            if s.guidance.prompt_dropout > 0:
                dropped = jax.random.bernoulli(key(Purpose.FAKE_DROPOUT), s.guidance.prompt_dropout, self._shape[:1])
                cond = drop_prompts(dropped, cond, empty)
            if s.gan.lambda_d:
                x_real, cond_real = self._real(frozen, inputs["real"], empty, dropped)

            def loss(psi):
                f_psi = self._fake_network(psi, s.gan.lambda_d > 0)
                of_fake = fake_loss(
                    f_psi, self.process, x_g, t, noise, cond, empty, s.guidance.kappa1, discriminator_text=self._text
                )
                total = jnp.sum(of_fake.loss) / s.batch
                metrics = {"loss": total, "dropped": _count(~of_fake.kept)}
                if s.gan.lambda_d:
                    # The discriminator's term: D is to be 1 at real images, 0 at the generator's.
                    logits_real, kept = gan.real_logits(f_psi, self.process, x_real, t, noise, cond_real)
                    values = gan.discriminator_loss(logits_real, kept, of_fake.logits, of_fake.kept)
                    total += s.gan.lambda_d * self._elements * jnp.sum(values) / s.batch
                    metrics |= {
                        "discriminator_loss": jnp.sum(values) / s.batch,
                        "real_logit": jnp.sum(logits_real.mean((1, 2)), where=kept) / s.batch,
                        "fake_logit": jnp.sum(of_fake.logits.mean((1, 2)), where=of_fake.kept) / s.batch,
                        "dropped_real": _count(~kept),
                    }
                return total, metrics

            (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(state.fake)
            return metrics, gradient

        inputs = {"tokens": tokens, "real": real}
        metrics, gradients = _sum_over_parts(part_gradient, inputs, s.accumulation)
        return self._adam_step(s.lr, state.step, state.fake, state.fake_moment, gradients, metrics)

    def generator(
        self, state: TrainState, fake: Any, frozen: dict, tokens: Any, empty: Any, n: int | jax.Array, adversarial: bool
    ):
        """B: (theta, its moment, metrics)."""
        s = self.settings
        if s.accumulation > 1:
            # Nothing of this update before the other is done: the sums of gradients are not in memory at once.
            fake, tokens = jax.lax.optimization_barrier((fake, tokens))

        def part_gradient(part, tokens):
            cond = self.networks.encode(frozen["text"], tokens)
            key = functools.partial(key_for, s.seed, state.step, part=part)
            z = noise_from_key(key(Purpose.GENERATOR_STEPS), self._shape)
            before = self.few_step.first_evaluations(self._network(state.generator), z, cond, n - 1)

            def last_evaluation(theta):
                return self.few_step.evaluate(self._network(theta), z, cond, n - 1, *before)[0]

            t = self.process.generator_times(key(Purpose.GENERATOR_TIME), self._shape[0])
            noise = jax.random.normal(key(Purpose.GENERATOR_NOISE), self._shape, jnp.float32)
            f_phi, f_psi = self._network(frozen["teacher"]), self._fake_network(fake, adversarial)

            def loss(x_g):
                of_x = generator_loss(
                    *(f_phi, f_psi, self.process, x_g, t, noise, cond, empty, s.guidance, s.alpha, s.weighting),
                    discriminator_text=self._text if adversarial else None,
                )
                total = s.loss_scale * jnp.sum(of_x.loss) / s.batch
                metrics = {"loss": total, "dropped": _count(~of_x.kept)}
                if adversarial:
                    # The adversarial term: D is to be 1 at the generator's images.
                    values = gan.adversarial_loss(of_x.logits, of_x.kept, of_x.w)
                    total += s.gan.lambda_g * self._elements * jnp.sum(values) / s.batch
                    entropies = gan.adversarial_loss(of_x.logits, of_x.kept, jnp.ones_like(of_x.w))
                    metrics["adversarial_loss"] = jnp.sum(entropies) / s.batch
                return total, (metrics, of_x.kept)

            # The chain rule in two links, theta -> x_g -> loss. Between them a sample that is left out is cut off: the
            # derivative of a network that overflowed is NaN, also where it is multiplied by zero.
            x_g, pull_back = jax.vjp(last_evaluation, state.generator)
            (_, (metrics, kept)), of_images = jax.value_and_grad(loss, has_aux=True)(x_g)
            (gradient,) = pull_back(jnp.where(kept[:, None, None, None], of_images, 0))
            return metrics, gradient

        metrics, gradients = _sum_over_parts(part_gradient, tokens, s.accumulation)
        count = self.generator_steps(state)
        return self._adam_step(s.glr, count, state.generator, state.generator_moment, gradients, metrics)

    def generator_steps(self, state: TrainState) -> jax.Array:
        """Updates of the generator so far: those before it was trained do not count, for Adam or for the average."""
        return jnp.maximum(state.step - self.settings.frozen_steps, 0)

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self.settings.batch // self.settings.accumulation, *self.settings.latent_shape)

    def _network(self, params: Any) -> Callable:
        return functools.partial(self.networks.unet, params)

    def _fake_network(self, psi: Any, discriminates: bool) -> Callable:
        """f_psi; where it is the discriminator too, it returns its bottleneck beside its output."""
        return functools.partial(self.networks.unet_with_bottleneck, psi) if discriminates else self._network(psi)

    @property
    def _text(self) -> bool | None:
        """Whether D reads the text; None where there is no D."""
        return self.settings.guidance.fake_reads_text if self.settings.gan.lambda_d else None

    @property
    def _elements(self) -> int:
        return int(np.prod(self.settings.latent_shape))

    def _real(self, frozen: dict, real: dict, empty: Any, dropped: jax.Array | None) -> tuple[jax.Array, Any]:
        """Real latents, and what D sees of their captions: where a fake sample's prompt is dropped, theirs is too, as
        otherwise an empty prompt would give a fake away."""
        latents = self.networks.encode_images(frozen.get("vae"), real["images"]).astype(jnp.float32)
        if not self._text:
            return latents, of_empty(empty, self._shape[0])
        cond = self.networks.encode(frozen["text"], real["tokens"])
        return latents, cond if dropped is None else drop_prompts(dropped, cond, empty)

    def _adam_step(self, learning_rate, count, params, moment, gradients, metrics):
        gradients, nonfinite = sanitize(gradients)
        metrics |= {"grad_norm": optax.tree.norm(gradients), "nonfinite_grads": nonfinite}
        optimizer = adam(learning_rate, self.settings.beta2, self.settings.eps)
        gradients = clip(gradients, self.settings.clip_value)
        updates, (_, moment) = optimizer.update(gradients, AdamState(count, moment))
        return optax.apply_updates(params, updates), moment, metrics


def _count(these: jax.Array) -> jax.Array:
    return jnp.sum(these, dtype=jnp.float32)


def _sum_over_parts(function: Callable, tokens: Any, parts: int):
    """The sum of `function(part, tokens of the part)` over the micro-batches of a batch, one after the other.

    Part j holds the samples j, j + parts, ...: a batch that is split over devices is then split over all of them in
    every part, without a transfer.
    """
    if parts == 1:
        return function(0, tokens)
    tokens = jax.tree.map(lambda x: x.reshape(len(x) // parts, parts, *x.shape[1:]).swapaxes(0, 1), tokens)
    result = jax.eval_shape(function, 0, jax.tree.map(lambda x: x[0], tokens))
    # What the sum begins with waits for the batch, or else it takes its memory from the start of the step.
    tokens, zero = jax.lax.optimization_barrier((tokens, jnp.float32(0)))
    zeros = jax.tree.map(lambda x: jnp.full(x.shape, zero, x.dtype), result)

    def add(total, part):
        return jax.tree.map(jnp.add, total, function(*part)), None

    return jax.lax.scan(add, zeros, (jnp.arange(parts), tokens))[0]
