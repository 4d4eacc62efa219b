"""FFHQ at 64 px, distilled into one step without a single image (SiD, arXiv 2404.04057).

Command:   python -m sid_jax.train --config configs/edm_ffhq64_sid.py
Teacher:   curl -O https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-ffhq-64x64-uncond-vp.pkl
           It is read where it lies: --config.teacher=FILE. Its licence is CC BY-NC-SA 4.0, and the student's is too
Memory:    1.7 GB for state and teacher (28 bytes a parameter, as the generator has a first moment), over all devices;
           more for an update: it shrinks with accumulation, the micro-batches of a batch
Cost:      11 forward passes of 83.7 GFLOP for each image
Published: FID 1.550 after 498 M images; the teacher in 79 evaluations 2.39
"""

import edm_cifar10_uncond_sid


def get_config():
    c = edm_cifar10_uncond_sid.get_config()
    c.teacher = "edm-ffhq-64x64-uncond-vp.pkl"
    c.resolution = 64
    c.batch = 512
    c.augment = 0.15
    c.dropout = 0.05
    c.optimizer.generator_beta1 = 0.9  # of this data set alone, and in SiD alone
    c.optimizer.eps = 1e-6
    c.precision.compute = "bfloat16"
    c.evaluate.teacher_steps = 40
    return c
