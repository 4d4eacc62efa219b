r"""CIFAR-10 without labels, distilled into one step with real images in a diffusion GAN (SiDA, arXiv 2410.14919).

Command:   python -m sid_jax.train --config configs/edm_cifar10_uncond_sida.py \
               --config.real.source=cifar10-32x32.zip
           The images are those of EDM's zip with its dataset.json, which sid_jax.dataset makes
Teacher:   as in configs/edm_cifar10_uncond_sid.py
Memory:    1.3 GB for state and teacher (24 bytes a parameter), over all devices; more for an update, which is
           taken in micro-batches. gan.group, the images that a cross entropy is averaged over, must divide them
Cost:      11 forward passes of 42.4 GFLOP for each image, and 0.98 for the real one: its encoder alone
Published: FID 1.499, the best of SiDA and SiD2A; the student of SiDA after 218 M images at sid.alpha 1
"""

import edm_cifar10_uncond_sid


def get_config():
    return sida(edm_cifar10_uncond_sid.get_config(), images=300_000_000, group=32)


def sida(c, images, group, alpha=1.0):
    """The config of a run of SiD as one of SiDA, of so many images; the other data sets' configs call it too.

    group: a GPU's share of a batch, of which there were four; a cross entropy is averaged over it.
    """
    c.images = images
    c.sid.alpha = alpha
    c.optimizer.generator_beta1 = 0.0

    c.gan.form = "sida"
    c.gan.lambda_d = 1.0
    c.gan.lambda_g = 0.01
    c.gan.freeze = 100_000
    c.gan.start = 200_000
    c.gan.group = group
    c.optimizer.clip_fake = 1.0
    return c
