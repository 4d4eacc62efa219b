"""One iteration of Score identity Distillation: A, B and C of section 5 (SiD-LSG, arXiv 2406.01561).

Where there are real images, A and B each have a further term, that of section 6.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sid_jax.sid.adam import clip, clip_norm, sanitize, warmed_up
from sid_jax.sid.barrier import barrier
from sid_jax.sid.ema import ema_beta, ema_update
from sid_jax.sid.few_step import FewStep, noise_from_key
from sid_jax.sid.gan import judge_real
from sid_jax.sid.guidance import Condition, Denoiser, Discriminator, drop_prompts, of_empty
from sid_jax.sid.keys import Purpose, key_for
from sid_jax.sid.losses import Gaps, fake_loss, generator_loss
from sid_jax.sid.process import Draw, Process, each
from sid_jax.sid.settings import Descent, Phase, Settings
from sid_jax.sid.state import Batch, Frozen, Networks, Real, TrainState
from sid_jax.sid.times import Times

Metrics = dict[str, jax.Array]

_GAPS = tuple(f"{name}_gap" for name in Gaps._fields)
_OF_GENERATOR = ("loss", "grad_norm", "dropped", "nonfinite_grads", *_GAPS)


class TrainStep(Protocol):
    """One iteration; the phase is static, and by default `Settings.last_phase`."""

    def __call__(
        self, state: TrainState, frozen: Frozen, batch: Batch, phase: Phase = ...
    ) -> tuple[TrainState, Metrics]: ...


def make_train_step(networks: Networks, few_step: FewStep, times: Times, settings: Settings) -> TrainStep:
    """The function of one iteration, `step(state, frozen, batch, phase) -> (state, metrics)`; it is pure, not jitted.

    phase: `settings.phase(step number)`, static; by default `settings.last_phase`.
    metrics: float32 scalars. `fake_loss`, `generator_loss`; `fake_grad_norm`, `generator_grad_norm`: of the gradients
      without non-finite entries, before clipping; `dropped_fake`, `dropped_generator`: samples left out of a loss;
      `nonfinite_grads`: entries of both gradients; `n`: steps drawn; `ema_beta`; `teacher_fake_gap`,
      `generator_teacher_gap`: means of `losses.Gaps` over the samples of update B that are not left out. With the GAN
      term, which the losses above do not contain: `discriminator_loss`, `adversarial_loss`, means of the cross
      entropies; `real_logit`, `fake_logit`, means of D; `dropped_real`. With a warm-up: `fake_lr`, `generator_lr`, the
      rates of this iteration. While the generator is frozen, what is of its update is 0, and `ema_beta` 1.

    Args:
      networks: as functions of their parameters.
      few_step: the generator, on the teacher's process.
      times: at which times the losses look.
      settings: the numbers.

    Raises:
      ValueError: settings that do not fit the process, or a GAN term without a discriminator.
    """
    times.check(few_step.process)
    if settings.gan.used and networks.discriminator is None:
        raise ValueError("gan.lambda_d: the GAN term needs a network that returns logits")
    updates = _Updates(networks, few_step, times, settings)

    def step(
        state: TrainState, frozen: Frozen, batch: Batch, phase: Phase = settings.last_phase
    ) -> tuple[TrainState, Metrics]:
        n: int | jax.Array = 1
        if few_step.num_steps > 1:
            key = key_for(settings.seed, state.step, Purpose.NUM_STEPS)
            n = jax.random.randint(key, (), 1, few_step.num_steps + 1, jnp.int32)
        empty = networks.encode_condition(frozen.conditions, batch.empty)

        # A. The fake network learns to denoise what the generator makes.
        fake, fake_optimizer, of_fake = updates.fake(state, frozen, batch, empty, n)

        if phase.generator:
            # B. The generator learns from the teacher and from the fake network as it is after A.
            generator, generator_optimizer, of_generator = updates.generator(
                state, fake, frozen, batch.generator, empty, n, phase.adversarial
            )
            # C. The moving average of the generator.
            images_seen = updates.generator_steps(state).astype(jnp.float32) * settings.batch
            beta = ema_beta(settings.ema.half_life, settings.ema.ramp_up, images_seen, settings.batch)
            ema = ema_update(state.ema, generator, beta)
        else:
            generator, generator_optimizer, ema = state.generator, state.generator_optimizer, state.ema
            beta = jnp.float32(1)
            of_generator = {name: jnp.float32(0) for name in _OF_GENERATOR}

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
            **{name: of_generator[name] for name in _GAPS},
        }
        if settings.gan.used:
            metrics |= {name: of_fake[name] for name in ("discriminator_loss", "real_logit", "fake_logit")}
            metrics["dropped_real"] = of_fake["dropped_real"]
            metrics["adversarial_loss"] = of_generator.get("adversarial_loss", jnp.float32(0))
        metrics |= {
            f"{name}_lr": of.get("lr", jnp.float32(0))
            for name, of, warmup in (
                ("fake", of_fake, settings.optimizer.fake_warmup),
                ("generator", of_generator, settings.optimizer.generator_warmup),
            )
            if warmup
        }
        new = TrainState(state.step + 1, generator, generator_optimizer, fake, fake_optimizer, ema)
        return new, metrics

    return step


def jit_train_step(
    networks: Networks, few_step: FewStep, times: Times, settings: Settings, **jit_options: Any
) -> jax.stages.Wrapped:
    """`make_train_step`, compiled, once for each phase: the old state is donated to the new one.

    `jit_options` are those of `jax.jit`.
    """
    step = make_train_step(networks, few_step, times, settings)
    return jax.jit(step, donate_argnums=0, static_argnums=3, **jit_options)


@dataclass(frozen=True)
class _Updates:
    """Updates A and B: draw, evaluate the loss and its gradient by micro-batches, take one step of Adam."""

    networks: Networks
    few_step: FewStep
    times: Times
    settings: Settings

    def fake(
        self, state: TrainState, frozen: Frozen, batch: Batch, empty: Any, n: int | jax.Array
    ) -> tuple[Any, Any, Metrics]:
        """A: (psi, the state of its optimizer, metrics)."""
        s, process = self.settings, self.process

        def gradient_of(micro_batch: int | jax.Array, inputs: tuple[Any, Real | None]) -> tuple[Metrics, Any]:
            kept = cond = self.networks.encode_condition(frozen.conditions, inputs[0])
            key = functools.partial(key_for, s.seed, state.step, micro_batch=micro_batch)
            dropped = None
            if s.guidance.prompt_dropout > 0:
                share = jnp.float32(s.guidance.prompt_dropout)
                dropped = jax.random.bernoulli(key(Purpose.FAKE_DROPOUT), share, self._shape[:1])
                cond = drop_prompts(dropped, kept, empty)
            z = noise_from_key(key(Purpose.FAKE_STEPS), self._shape)
            asked = cond if s.guidance.drop_before_generator else kept
            x_g, _ = self.few_step.first_evaluations(self._denoiser(frozen, state.generator), z, asked, n)
            x_g, cond = self._augmented(key, Purpose.FAKE_AUGMENT, x_g, cond)

            draw = self._draw(self.times.fake, key(Purpose.FAKE_TIME), key(Purpose.FAKE_NOISE))
            condition = self._condition(cond, empty, s.gan.used)
            real = self._real(frozen, inputs[1], empty, dropped) if s.gan.used else None
            if real:
                real = self._augmented(key, Purpose.REAL_AUGMENT, *real)
            dropout, real_dropout = (self._dropout(key, purpose) for purpose in (Purpose.FAKE_NET, Purpose.REAL_NET))

            def loss(psi: Any) -> tuple[jax.Array, Metrics]:
                discriminator = self._discriminator(frozen, psi, dropout) if s.gan.used else None
                f_psi = discriminator or self._denoiser(frozen, psi, dropout)
                of_fake = fake_loss(f_psi, process, x_g, draw, condition, s.guidance.kappa1)
                total = jnp.sum(of_fake.loss) / s.batch
                metrics = {"loss": total, "dropped": _count(~of_fake.kept)}
                if discriminator and real:
                    # The discriminator's term: D is to be 1 at real images, 0 at the generator's.
                    x_real, cond_real = real
                    judge = self._discriminator(frozen, psi, real_dropout)
                    of_real = judge_real(judge, process, x_real, draw, cond_real)
                    weight = process.fake_weight(draw.t)
                    values = s.gan.discriminator_loss(of_real, of_fake.judged, weight)
                    total += s.gan.discriminator_factor(self._elements) * jnp.sum(values) / s.batch
                    metrics |= {
                        "discriminator_loss": s.gan.discriminator_entropy(values, weight, s.batch),
                        "real_logit": of_real.mean(s.batch),
                        "fake_logit": of_fake.judged.mean(s.batch),
                        "dropped_real": _count(~of_real.kept),
                    }
                return total, metrics

            (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(state.fake)
            return metrics, gradient

        metrics, gradients = _sum_over_micro_batches(gradient_of, (batch.fake, batch.real), s.accumulation)
        return self._adam_step(s.optimizer.of_fake, state.fake, state.fake_optimizer, gradients, metrics)

    def generator(
        self, state: TrainState, fake: Any, frozen: Frozen, read: Any, empty: Any, n: int | jax.Array, adversarial: bool
    ) -> tuple[Any, Any, Metrics]:
        """B: (theta, the state of its optimizer, metrics)."""
        s, process = self.settings, self.process
        if s.accumulation > 1:
            # Nothing of this update before the other is done: the sums of gradients are not in memory at once.
            fake, read = barrier((fake, read))

        def gradient_of(micro_batch: int | jax.Array, read: Any) -> tuple[Metrics, Any]:
            cond = self.networks.encode_condition(frozen.conditions, read)
            key = functools.partial(key_for, s.seed, state.step, micro_batch=micro_batch)
            z = noise_from_key(key(Purpose.GENERATOR_STEPS), self._shape)
            before = self.few_step.first_evaluations(self._denoiser(frozen, state.generator), z, cond, n - 1)
            dropout = self._dropout(key, Purpose.GENERATOR_NET)

            def last_evaluation(theta: Any) -> jax.Array:
                return self.few_step.evaluate(self._denoiser(frozen, theta, dropout), z, cond, n - 1, *before)[0]

            draw = self._draw(self.times.generator, key(Purpose.GENERATOR_TIME), key(Purpose.GENERATOR_NOISE))
            condition = self._condition(cond, empty, adversarial)
            f_phi = self._denoiser(frozen, None)
            f_psi = self._discriminator(frozen, fake, None) if adversarial else self._denoiser(frozen, fake)

            def loss(x_g: jax.Array) -> tuple[jax.Array, tuple[Metrics, jax.Array]]:
                of_x = generator_loss(f_phi, f_psi, process, x_g, draw, condition, s.guidance, s.loss)
                factor, adversarial_factor = s.loss.loss_scale, 0.0
                if adversarial:
                    factor, adversarial_factor = s.gan.generator_factors(factor, self._elements)
                total = factor * jnp.sum(of_x.loss) / s.batch
                metrics = {"loss": total, "dropped": _count(~of_x.kept), **of_x.sums_of_gaps}
                if adversarial:
                    # The adversarial term: D is to be 1 at the generator's images.
                    values = s.gan.adversarial_loss(of_x.judged, of_x.w)
                    total += adversarial_factor * jnp.sum(values) / s.batch
                    entropies = s.gan.adversarial_loss(of_x.judged, jnp.ones_like(of_x.w))
                    metrics["adversarial_loss"] = jnp.sum(entropies) / s.batch
                return total, (metrics, of_x.kept)

            # The chain rule in two links, theta -> x_g -> loss. Between them a sample that is left out is cut off: the
            # derivative of a network that overflowed is NaN, also where it is multiplied by zero.
            x_g, pull_back = jax.vjp(last_evaluation, state.generator)
            (_, (metrics, kept)), of_images = jax.value_and_grad(loss, has_aux=True)(x_g)
            (gradient,) = pull_back(jnp.where(each(kept), of_images, 0))
            return metrics, gradient

        metrics, gradients = _sum_over_micro_batches(gradient_of, read, s.accumulation)
        kept = jnp.maximum(s.batch - metrics["dropped"], 1)
        metrics |= {name: metrics[name] / kept for name in _GAPS}
        descent = s.optimizer.of_generator
        return self._adam_step(descent, state.generator, state.generator_optimizer, gradients, metrics)

    def generator_steps(self, state: TrainState) -> jax.Array:
        """Updates of the generator so far: those before it was trained do not count for the average."""
        return jnp.maximum(state.step - self.settings.frozen_steps, 0)

    @property
    def process(self) -> Process:
        """The teacher's."""
        return self.few_step.process

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self.settings.batch // self.settings.accumulation, *self.settings.shape)

    @property
    def _elements(self) -> int:
        return int(np.prod(self.settings.shape))

    def _draw(self, law: Callable[[jax.Array, int], jax.Array], of_time: jax.Array, of_noise: jax.Array) -> Draw:
        return Draw(law(of_time, self._shape[0]), jax.random.normal(of_noise, self._shape, jnp.float32))

    def _condition(self, cond: Any, empty: Any, discriminates: bool) -> Condition:
        return Condition(cond, empty, self.settings.guidance.fake_reads_text if discriminates else None)

    def _augmented(self, key: Callable[[Purpose], jax.Array], purpose: Purpose, x: jax.Array, cond: Any) -> Any:
        """The images and their condition as the fake network sees them in update A."""
        return self.networks.augment(key(purpose), x, cond) if self.networks.augment else (x, cond)

    def _dropout(self, key: Callable[[Purpose], jax.Array], purpose: Purpose) -> jax.Array | None:
        """The key of what a network drops out; None: nothing."""
        return key(purpose) if self.networks.drops_out else None

    def _denoiser(self, frozen: Frozen, trained: Any, dropout: jax.Array | None = None) -> Denoiser:
        """The generator, or f_psi, or with None the teacher f_phi."""
        params = self.networks.combine(frozen.base, trained)
        return lambda x_t, t, cond: self.networks.denoiser(params, x_t, t, cond, dropout)

    def _discriminator(self, frozen: Frozen, psi: Any, dropout: jax.Array | None) -> Discriminator:
        """f_psi where it is the discriminator too: it returns logits beside its output."""
        network = self.networks.discriminator
        assert network is not None, "a GAN term without a discriminator is refused before"
        params = self.networks.combine(frozen.base, psi)
        return lambda x_t, t, cond: network(params, x_t, t, cond, dropout)

    def _real(self, frozen: Frozen, real: Real | None, empty: Any, dropped: jax.Array | None) -> tuple[jax.Array, Any]:
        """Real images or latents, and what D sees of their captions: where a fake sample's prompt is dropped, theirs is
        too, as otherwise an empty prompt would give a fake away."""
        if real is None:
            raise ValueError("gan.lambda_d: the GAN term needs real images")
        images = self.networks.encode_images(frozen.space, real.images).astype(jnp.float32)
        if not self.settings.guidance.fake_reads_text:
            return images, of_empty(empty, self._shape[0])
        cond = self.networks.encode_condition(frozen.conditions, real.conditions)
        return images, cond if dropped is None else drop_prompts(dropped, cond, empty)

    def _adam_step(
        self, descent: Descent, params: Any, optimizer_state: Any, gradients: Any, metrics: Metrics
    ) -> tuple[Any, Any, Metrics]:
        gradients, nonfinite = sanitize(gradients)
        metrics |= {"grad_norm": optax.tree.norm(gradients), "nonfinite_grads": nonfinite}
        gradients = clip_norm(clip(gradients, descent.clip_value), descent.clip_norm)
        scaled, optimizer_state = descent.adam.update(gradients, optimizer_state)
        rate = warmed_up(descent.learning_rate, descent.warmup / self.settings.batch, optimizer_state.count)
        if descent.warmup:
            metrics["lr"] = jnp.asarray(rate)
        return optax.apply_updates(params, optax.tree.scale(-rate, scaled)), optimizer_state, metrics


def _count(these: jax.Array) -> jax.Array:
    return jnp.sum(these, dtype=jnp.float32)


def _sum_over_micro_batches(function: Callable[[Any, Any], Any], inputs: Any, count: int) -> Any:
    """The sum of `function(index, inputs of the micro-batch)` over the micro-batches of a batch, one after the other.

    Micro-batch j holds the samples j, j + count, ...: a batch that is split over devices is then split over all of them
    in every micro-batch, without a transfer.
    """
    if count == 1:
        return function(0, inputs)
    inputs = jax.tree.map(lambda x: x.reshape(len(x) // count, count, *x.shape[1:]).swapaxes(0, 1), inputs)
    function = jax.jit(function)  # which is traced once: for its shapes, and then in the loop
    turns = jnp.arange(count)
    result = jax.eval_shape(function, *jax.tree.map(lambda x: x[0], (turns, inputs)))
    # What the sum begins with waits for the batch, or else it takes its memory from the start of the step.
    inputs, zero = barrier((inputs, jnp.float32(0)))
    zeros = jax.tree.map(lambda x: jnp.full(x.shape, zero, x.dtype), result)

    def add(total: Any, turn: tuple[Any, Any]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(*turn)), None

    return jax.lax.scan(add, zeros, (turns, inputs))[0]
