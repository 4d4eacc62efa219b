"""DDIM, the sampler that the teacher is measured with (Song et al. 2021, arXiv 2010.02502, eta = 0)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sid_jax.errors import UserError
from sid_jax.sid import VP, Condition, Denoiser, Noise, guided


def trailing(total: int, num_steps: int) -> tuple[int, ...]:
    """The times of diffusers' `timestep_spacing="trailing"`, descending from the last of `total`."""
    return tuple(int(t) for t in np.round(np.arange(total, 0, -total / num_steps)) - 1)[:num_steps]


MOST_GUIDANCE = 3.4e38  # float32 has nothing beyond


@dataclass(frozen=True)
class DDIM:
    """A sampler of `num_steps` steps with classifier-free guidance; its network and noise are arguments of `generate`.

    The times are those of Stable Diffusion's schedulers: every (T / num_steps)-th, plus one, and the last step ends at
    time 0 (diffusers' `timestep_spacing="leading"`, `steps_offset=1`, `set_alpha_to_one=False`). A teacher with zero
    terminal SNR was trained at the last time too, and has to begin there (Lin et al. 2024, arXiv 2305.08891): its times
    are those of diffusers' `timestep_spacing="trailing"`.

    Attributes:
      process: the teacher's forward process.
      num_steps: evaluations, 1 to T - 1.
      guidance_scale: 1 is no guidance.
    """

    process: VP
    num_steps: int = 50
    guidance_scale: float = 7.5

    def __post_init__(self) -> None:
        most = len(self.process.alphas_cumprod) - 1
        if not 1 <= self.num_steps <= most:
            raise UserError(f"DDIM takes 1 to {most} steps, not {self.num_steps}")
        if not abs(self.guidance_scale) < MOST_GUIDANCE:
            raise UserError(f"DDIM takes a guidance below {MOST_GUIDANCE:g}, not {self.guidance_scale}")

    @property
    def times(self) -> tuple[int, ...]:
        """The time of each step, descending."""
        total = len(self.process.alphas_cumprod)
        if self.process.zero_terminal_snr:
            return trailing(total, self.num_steps)
        stride = total // self.num_steps
        return tuple(k * stride + 1 for k in range(self.num_steps))[::-1]

    def generate(self, denoiser: Denoiser, noise: Noise, condition: Condition) -> jax.Array:
        """Latents `[B, H, W, C]` that start from the unit noise `noise(0)` of that shape."""
        times = jnp.asarray(self.times)
        following = jnp.maximum(times - len(self.process.alphas_cumprod) // self.num_steps, 0)
        start = noise(0)

        def step(k: jax.Array, x: jax.Array) -> jax.Array:
            t, to = jnp.full(len(x), times[k]), jnp.full(len(x), following[k])
            (output,) = guided(denoiser, x, t, condition, (self.guidance_scale,))
            x0 = self.process.to_x0(x, t, output)
            return self.process.corrupt(x0, to, self.process.noise_of(x, t, x0))

        return jax.lax.fori_loop(0, self.num_steps, step, start)
