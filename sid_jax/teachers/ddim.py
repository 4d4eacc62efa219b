"""DDIM, the sampler that the teacher is measured with (Song et al. 2021, arXiv 2010.02502, eta = 0)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sid_jax.sid import VP, guided


def ddim_times(process: VP, steps: int) -> list[int]:
    """The times of `steps` DDIM steps, descending: every (T / steps)-th, plus one, as Stable Diffusion's schedulers.

    diffusers names this `timestep_spacing="leading"`, `steps_offset=1`.
    """
    stride = len(process.alphas_cumprod) // steps
    return [k * stride + 1 for k in range(steps)][::-1]


def ddim_sample(
    network: Callable,
    process: VP,
    noise: jax.Array,
    cond: Any,
    empty: Any,
    *,
    steps: int,
    guidance_scale: float,
) -> jax.Array:
    """Latents `[B, H, W, C]` from unit noise of that shape.

    Args:
      network: (x_t, t `[B]`, cond) -> raw output.
      process: the teacher's forward process.
      noise: x_T.
      cond, empty: the condition of each sample, and of the empty prompt with a batch axis of 1.
      steps: evaluations, at most T.
      guidance_scale: of classifier-free guidance; 1 is none.
    """
    times = jnp.asarray(ddim_times(process, steps))
    # The last step ends at time 0 and not at a clean image (`set_alpha_to_one=False`).
    following = jnp.append(times[1:], 0)

    def step(k, x):
        t, to = jnp.full(len(x), times[k]), jnp.full(len(x), following[k])
        (output,) = guided(network, x, t, cond, empty, guidance_scale)
        x0 = process.to_x0(x, t, output)
        return process.corrupt(x0, to, process.noise_of(x, t, x0))

    return jax.lax.fori_loop(0, steps, step, noise)
