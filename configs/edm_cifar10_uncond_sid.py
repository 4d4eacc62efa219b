"""CIFAR-10 without labels, distilled into one step without a single image (SiD, arXiv 2404.04057).

Command:   python -m sid_jax.train --config configs/edm_cifar10_uncond_sid.py
Teacher:   curl -O https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-cifar10-32x32-uncond-vp.pkl
           It is read where it lies: --config.teacher=FILE. Its licence is CC BY-NC-SA 4.0, and the student's is too
Memory:    1.3 GB for state and teacher (24 bytes a parameter), over all devices; more for an update: it
           shrinks with accumulation, the micro-batches of a batch
Cost:      11 forward passes of 42.4 GFLOP for each image
Published: FID 1.923 after 404 M images; the teacher in 35 evaluations 1.97
"""

import sid_jax.config


def get_config():
    c = sid_jax.config.default("edm")
    c.teacher = "edm-cifar10-32x32-uncond-vp.pkl"
    c.resolution = 32
    c.images = 500_000_000
    c.batch = 256

    c.sid.alpha = 1.2
    c.sid.loss_scale = 100.0
    c.augment = 0.12
    c.dropout = 0.13

    c.optimizer.fake_lr = 1e-5
    c.optimizer.generator_lr = 1e-5
    c.optimizer.eps = 1e-8
    c.ema.half_life = 500_000
    return c
