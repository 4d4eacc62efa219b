"""The bundled pixel teacher of digits, distilled into one step with real digits in a diffusion GAN (SiDA).

Command:  python -m sid_jax.train --config configs/edm_digits_sida.py
Hardware: 2 CPU cores
Compare:  configs/edm_digits_1step.py, the same budget without images
"""

import edm_digits_1step
from edm_cifar10_uncond_sida import sida


def get_config():
    c = edm_digits_1step.get_config()
    c = sida(c, images=c.images, group=32, alpha=c.sid.alpha)
    c.real.source = "bundled:edm_digits_images.zip"
    c.gan.freeze = 1_600  # 50 updates
    c.gan.start = 3_200
    return c
