"""Classifier-free guidance of the fake network and the teacher: four scales (section 3; SiD-LSG, arXiv 2406.01561)."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

Denoiser = Callable[[jax.Array, jax.Array, Any], jax.Array]
"""(x_t `[B, H, W, C]`, t `[B]`, condition) -> raw output `[B, H, W, C]`. A condition is any pytree of arrays with the
batch as first axis."""

Discriminator = Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, jax.Array]]
"""The same with what it says as a discriminator: -> (raw output, logits `[B, ...]`)."""

STRATEGIES = ("none", "lsg", "zero_cfg", "anti_cfg")
DEFAULT_SCALE = 1.5
"""Of "lsg": the one of Stable Diffusion 1.5's best published FID."""
PROMPT_DROPOUT = 0.1
"""The share of update A's prompts that is dropped in SiD-LSG's published code, wherever its fake network is guided."""


@dataclass(frozen=True)
class Guidance:
    """Scales kappa1..kappa4, and how prompts of update A are dropped, that is, replaced by the empty prompt.

    Attributes:
      kappa1: on the fake network, in its own loss.
      kappa2: on the fake network, in the generator's loss, where it is compared with the teacher.
      kappa3: on the fake network, in the generator's loss, where it is compared with x_g.
      kappa4: on the teacher, in the generator's loss.
      prompt_dropout: the probability that a prompt is dropped, in [0, 1].
      drop_before_generator: whether x_g of update A too is generated from the dropped prompt, as published; else from
        the one that was kept, and the fake network's loss alone sees the empty prompt.

    Raises:
      ValueError: prompt_dropout is not a probability.
    """

    kappa1: float = 1.0
    kappa2: float = 1.0
    kappa3: float = 1.0
    kappa4: float = 1.0
    prompt_dropout: float = 0.0
    drop_before_generator: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.prompt_dropout <= 1:
            raise ValueError(f"guidance.prompt_dropout: {self.prompt_dropout} is not in [0, 1]")

    @property
    def fake_reads_text(self) -> bool:
        """Whether the fake network is trained with text; the discriminator of the GAN term then reads it too."""
        return self.kappa1 != 0

    @property
    def published_dropout(self) -> float:
        """The prompt_dropout that these scales are published with."""
        return PROMPT_DROPOUT if self.kappa1 != 1 or self.kappa2 != 1 else 0.0


def preset(strategy: str, scale: float = DEFAULT_SCALE) -> Guidance:
    """The scales of a named strategy and their published dropout; `dataclasses.replace` sets single ones apart from it.

    "none": no guidance. "lsg", long and short guidance: `scale` everywhere (arXiv 2406.01561). "zero_cfg", "anti_cfg":
    the teacher without guidance, the fake network without text or pushed away from it (Few-Step SiD, arXiv 2505.12674).

    Raises:
      ValueError: an unknown strategy.
    """
    scales = {
        "none": (1.0, 1.0, 1.0, 1.0),
        "lsg": (scale, scale, scale, scale),
        "zero_cfg": (0.0, 0.0, 0.0, 1.0),
        "anti_cfg": (-1.0, -1.0, -1.0, 1.0),
    }
    if strategy not in scales:
        raise ValueError(f"guidance.strategy: {strategy!r} is not one of {', '.join(scales)}")
    guidance = Guidance(*scales[strategy])
    return dataclasses.replace(guidance, prompt_dropout=guidance.published_dropout)


@dataclass(frozen=True)
class Condition:
    """What the networks are given beside x_t and t.

    Attributes:
      cond: the condition of each sample.
      empty: the condition of the empty prompt, with a batch axis of 1; it is not read if every scale is 1.
      discriminator: whether the discriminator sees `cond`, or `empty`; None: there is no discriminator.
    """

    cond: Any
    empty: Any
    discriminator: bool | None = None


def guided(
    denoiser: Denoiser, x_t: jax.Array, t: jax.Array, condition: Condition, scales: Sequence[float]
) -> list[jax.Array]:
    """Guided raw outputs, one for each scale k, all from a single forward pass.

    k = 1 is the conditional output and k = 0 the unconditional one; any other k is uncond + k (cond - uncond). The
    batch is doubled only if the scales need both.

    Args:
      denoiser: see `Denoiser`.
      x_t: `[B, H, W, C]`.
      t: `[B]`.
      condition: of the samples.
      scales: static floats.

    Returns:
      One float32 `[B, H, W, C]` for each scale.
    """
    without, with_it = _needed(scales)
    unconditional, conditional = _evaluate(denoiser, x_t, t, condition, without=without, with_it=with_it)
    return [_combine(unconditional, conditional, scale) for scale in scales]


def guided_with_logits(
    denoiser: Discriminator, x_t: jax.Array, t: jax.Array, condition: Condition, scales: Sequence[float]
) -> tuple[list[jax.Array], jax.Array]:
    """What `guided` returns, and the logits of the pass that `condition.discriminator` says, from the same evaluation.

    Arguments are those of `guided`. A pass that only the logits need is added to the batch.
    """
    without, with_it = _needed(scales)
    sees_condition = bool(condition.discriminator)
    passes = _evaluate(
        denoiser, x_t, t, condition, without=without or not sees_condition, with_it=with_it or sees_condition
    )
    unconditional, conditional = map(_output, passes)
    return [_combine(unconditional, conditional, scale) for scale in scales], passes[sees_condition][1]


def drop_prompts(dropped: jax.Array, cond: Any, empty: Any) -> Any:
    """The condition of the empty prompt where `dropped` (`[B]` bool) is true, else the sample's own."""
    return jax.tree.map(lambda c, e: jnp.where(dropped.reshape(-1, *[1] * (c.ndim - 1)), e, c), cond, empty)


def of_empty(empty: Any, batch: int) -> Any:
    """The condition of the empty prompt, with a batch axis of 1, for `batch` samples."""
    return jax.tree.map(lambda e: jnp.broadcast_to(e, (batch, *e.shape[1:])), empty)


def _needed(scales: Sequence[float]) -> tuple[bool, bool]:
    """Whether the scales need the unconditional pass, and whether the conditional one."""
    return any(scale != 1 for scale in scales), any(scale != 0 for scale in scales)


def _evaluate(
    denoiser: Callable[[jax.Array, jax.Array, Any], Any],
    x_t: jax.Array,
    t: jax.Array,
    condition: Condition,
    *,
    without: bool,
    with_it: bool,
) -> tuple[Any, Any]:
    """What the network returns without and with the condition, in float32, from one forward pass; None where it is not
    asked."""

    def call(x_t: jax.Array, t: jax.Array, cond: Any) -> Any:
        return jax.tree.map(lambda x: x.astype(jnp.float32), denoiser(x_t, t, cond))

    if not without:
        return None, call(x_t, t, condition.cond)
    empty = of_empty(condition.empty, len(t))
    if not with_it:
        return call(x_t, t, empty), None
    twice = call(_pairs(x_t, x_t), _pairs(t, t), jax.tree.map(_pairs, empty, condition.cond))
    twice = jax.tree.map(lambda x: x.reshape(len(t), 2, *x.shape[1:]), twice)
    return jax.tree.map(lambda x: x[:, 0], twice), jax.tree.map(lambda x: x[:, 1], twice)


def _combine(unconditional: jax.Array, conditional: jax.Array, scale: float) -> jax.Array:
    """The guided output. Of the two, one that the scale does not need is not read."""
    if scale == 1:
        return conditional
    if scale == 0:
        return unconditional
    return unconditional + scale * (conditional - unconditional)


def _output(result: tuple[jax.Array, jax.Array] | None) -> Any:
    return None if result is None else result[0]


def _pairs(first: jax.Array, second: jax.Array) -> jax.Array:
    """Two `[B, ...]` to one `[2B, ...]`, the two of a sample side by side.

    A batch that is split over devices is then doubled without a transfer, which concatenating the halves would need.
    """
    return jnp.stack([first, second], axis=1).reshape(2 * len(first), *first.shape[1:])
