"""Stable Diffusion 1.5, distilled into one step at 512 px with long and short guidance (SiD-LSG, arXiv 2406.01561).

Command:   python -m sid_jax.train --config configs/sd15_1step.py --config.prompts=prompts.txt
           prompts.txt has one prompt a line; the paper's are those of LAION-Aesthetics 6+. No images are needed.
           On pods and clusters: docs/pods.md
Teacher:   fetched from the hub, or a local diffusers folder: --config.teacher=FOLDER
Memory:    18.9 GB for state and teacher (22 bytes a parameter), over all devices; more for an update: it shrinks with
           accumulation, the micro-batches of a batch of 512. One GPU of 24 GB is enough (docs/scale.md) with
           --config.mesh.fsdp=1 --config.remat=full --config.text.precompute=true, one image at a time
Cost:      18 forward passes of the UNet for each of 10 M images
Published: COCO-2014 30k, zero-shot: FID 8.15, CLIP 0.304 at guidance.scale 1.5 (longer training);
           9.56 / 0.313 at 2; 16.59 / 0.317 at 4.5
"""

import sid_jax.config


def get_config():
    c = sid_jax.config.default()
    c.teacher = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    c.resolution = 512

    c.images = 10_000_000
    c.batch = 512

    c.sid.num_steps = 1
    c.sid.t_init = 625
    c.sid.alpha = 1.0

    c.guidance.strategy = "lsg"
    c.guidance.scale = 1.5

    c.optimizer.fake_lr = 1e-6
    c.optimizer.generator_lr = 1e-6
    c.optimizer.eps = 1e-6  # mixed precision
    c.ema.half_life = 50_000
    c.precision.compute = "bfloat16"
    c.precision.teacher = "bfloat16"

    # Parameters are divided over all devices: it always fits best. On several slices of TPUs: mesh.data=SLICES.
    c.mesh.data = 1
    c.mesh.fsdp = -1
    return c
