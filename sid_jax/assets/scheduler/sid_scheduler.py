"""The sampler of a distilled generator for PyTorch's diffusers: K evaluations, each from fresh noise.

    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.scheduler = SiDScheduler.from_pretrained(folder, subfolder="sid_scheduler")
    image = pipe("a prompt", num_inference_steps=K, guidance_scale=1.0).images[0]

x = 0; for each time t_k: x_t = a x + s z_k, and x becomes what the network predicts of the clean latents
(Few-Step SiD, arXiv 2505.12674).
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor


class SiDScheduler(SchedulerMixin, ConfigMixin):
    """Times floor(t_init (1 - k / K)), k = 0..K-1.

    Args:
      trained_betas: of the teacher's forward process, one for each training time.
      prediction_type: "epsilon" or "v_prediction".
      t_init: the first time.
      noise_type: noise of the steps after the first: "fresh" is new, "fixed" is the first again, "ddim" is what the
        last step's input and output imply.
      first: the first input: "scaled" noise s z, or "unit" noise z.
    """

    order = 1

    @register_to_config
    def __init__(self, trained_betas=(), prediction_type="epsilon", t_init=625, noise_type="fresh", first="scaled"):
        self.alphas_cumprod = torch.cumprod(1 - torch.tensor(trained_betas, dtype=torch.float64), dim=0).float()
        self.timesteps = torch.tensor([t_init])
        self._first_noise = None

    @property
    def init_noise_sigma(self):
        """The first input is s z_0, as x is 0 there, unless the student was trained from z_0 itself."""
        return 1.0 if self.config.first == "unit" else self._scales(self.timesteps[0])[1]

    def set_timesteps(self, num_inference_steps, device=None):
        t_init = self.config.t_init
        times = [t_init * (num_inference_steps - k) // num_inference_steps for k in range(num_inference_steps)]
        self.timesteps = torch.tensor(times, device=device)
        self._first_noise = None

    def scale_model_input(self, sample, timestep=None):
        return sample

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        a, s = self._scales(timestep)
        if self._first_noise is None:
            self._first_noise = sample / self.init_noise_sigma
        if self.config.prediction_type == "epsilon":
            x = (sample - s * model_output) / a
        else:
            x = a * sample - s * model_output
        k = int((self.timesteps == timestep).nonzero()[0])
        if k + 1 < len(self.timesteps):
            noise = self._noise(sample, x, a, s, generator)
            a, s = self._scales(self.timesteps[k + 1])
            x = a * x + s * noise
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)

    def _noise(self, sample, x, a, s, generator):
        if self.config.noise_type == "fixed":
            return self._first_noise
        if self.config.noise_type == "ddim":
            return (sample - a * x) / s
        return randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)

    def _scales(self, timestep):
        abar = self.alphas_cumprod[int(timestep)]
        return float(abar.sqrt()), float((1 - abar).sqrt())
