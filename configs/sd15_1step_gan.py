r"""Stable Diffusion 1.5, distilled into one step at 512 px with a diffusion GAN (Few-Step SiD, arXiv 2505.12674).

Command:  python -m sid_jax.train --config configs/sd15_1step_gan.py \
              --config.prompts=prompts.txt --config.real.source=DATA
          DATA is a folder of images with captions, "shards/*.tar" (WebDataset), or "tfds:NAME"; see docs/guidance.md.
          Encode it once by python -m sid_jax.encode, and training needs no autoencoder.
Variants: --config.guidance.strategy=anti_cfg, negative guidance in the fake network; or =lsg
Teacher:  fetched from the hub, or a local diffusers folder: --config.teacher=FOLDER
Weights:  those of arXiv 2509.25127 for text to image; the other settings are those of sd15_1step
"""

import sd15_1step


def get_config():
    c = sd15_1step.get_config()
    # The teacher without guidance, and the fake network without text.
    c.guidance.strategy = "zero_cfg"
    c.sid.loss_scale = 100.0
    c.gan.lambda_d = 1.0
    c.gan.lambda_g = 1.0
    return c
