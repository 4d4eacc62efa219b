"""AFHQv2 at 64 px, distilled into one step without a single image (SiD, arXiv 2404.04057).

Command:   python -m sid_jax.train --config configs/edm_afhqv2_sid.py
Teacher:   curl -O https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-afhqv2-64x64-uncond-vp.pkl
           It is read where it lies: --config.teacher=FILE. Its licence is CC BY-NC-SA 4.0, and the student's is too
Memory:    1.5 GB for state and teacher (24 bytes a parameter), over all devices; more for an update: it
           shrinks with accumulation, the micro-batches of a batch
Cost:      11 forward passes of 83.7 GFLOP for each image
Published: FID 1.628 after 372 M images; the teacher in 79 evaluations 1.96
"""

import edm_ffhq64_sid


def get_config():
    c = edm_ffhq64_sid.get_config()
    c.teacher = "edm-afhqv2-64x64-uncond-vp.pkl"
    c.sid.alpha = 1.0
    c.dropout = 0.05  # the teacher was trained with 0.25
    c.optimizer.fake_lr = 5e-6
    c.optimizer.generator_lr = 5e-6
    c.optimizer.generator_beta1 = 0.0
    return c
