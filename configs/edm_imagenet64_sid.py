"""ImageNet at 64 px with labels, distilled into one step without a single image (SiD, arXiv 2404.04057).

Command:   python -m sid_jax.train --config configs/edm_imagenet64_sid.py
Teacher:   curl -O https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-imagenet-64x64-cond-adm.pkl
           It is read where it lies: --config.teacher=FILE. Its licence is CC BY-NC-SA 4.0, and the student's is too
Labels:    all classes alike; --config.labels.counts=FILE draws them as often as the data set has them
Memory:    7.1 GB for state and teacher (24 bytes a parameter), over all devices; more for an update: it
           shrinks with accumulation, the micro-batches of a batch
Cost:      11 forward passes of 219 GFLOP for each image
Published: FID 1.524 after 939 M images; the teacher in 511 evaluations 1.36
"""

import edm_cifar10_uncond_sid


def get_config():
    c = edm_cifar10_uncond_sid.get_config()
    c.teacher = "edm-imagenet-64x64-cond-adm.pkl"
    c.resolution = 64
    c.images = 1_000_000_000
    c.batch = 8192
    c.accumulation = 32
    c.augment = 0.0  # neither was the teacher
    c.dropout = 0.10
    c.optimizer.fake_lr = 4e-6
    c.optimizer.generator_lr = 4e-6
    c.optimizer.eps = 1e-6
    c.ema.half_life = 2_000_000
    c.precision.compute = "bfloat16"
    c.evaluate.teacher_steps = 256
    return c
