r"""ImageNet at 64 px with labels, distilled into one step with real images in a diffusion GAN (SiDA, arXiv 2410.14919).

Command:   python -m sid_jax.train --config configs/edm_imagenet64_sida.py \
               --config.real.source=imagenet-64x64.zip
           The images are those of EDM's zip with its dataset.json, which sid_jax.dataset makes
Teacher:   as in configs/edm_imagenet64_sid.py
Memory:    7.1 GB for state and teacher (24 bytes a parameter), over all devices; more for an update, which is
           taken in micro-batches. gan.group, the images that a cross entropy is averaged over, must divide them
Cost:      11 forward passes of 219 GFLOP for each image, and 0.82 for the real one: its encoder alone
Published: FID 1.110, the best of SiDA and SiD2A; the student of SiDA after 249 M images at sid.alpha 1
"""

import edm_imagenet64_sid
from edm_cifar10_uncond_sida import sida


def get_config():
    return sida(edm_imagenet64_sid.get_config(), images=300_000_000, group=32)
