"""CIFAR-10 with labels, distilled into one step without a single image (SiD, arXiv 2404.04057).

Command:   python -m sid_jax.train --config configs/edm_cifar10_cond_sid.py
Teacher:   curl -O https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-cifar10-32x32-cond-vp.pkl
           It is read where it lies: --config.teacher=FILE. Its licence is CC BY-NC-SA 4.0, and the student's is too
Memory:    1.3 GB for state and teacher (24 bytes a parameter), over all devices; more for an update: it
           shrinks with accumulation, the micro-batches of a batch
Cost:      11 forward passes of 42.4 GFLOP for each image
Published: FID 1.710 after 713 M images; the teacher in 35 evaluations 1.79
"""

import edm_cifar10_uncond_sid


def get_config():
    c = edm_cifar10_uncond_sid.get_config()
    c.teacher = "edm-cifar10-32x32-cond-vp.pkl"
    c.images = 800_000_000
    return c
