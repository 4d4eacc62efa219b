"""Stable Diffusion XL, distilled into one step at 1024 px (Few-Step SiD, arXiv 2505.12674).

Command:   python -m sid_jax.train --config configs/sdxl_1step.py --config.prompts=prompts.txt
           On pods and clusters: docs/pods.md
Teacher:   fetched from the hub, or a local diffusers folder: --config.teacher=FOLDER. Both text encoders are used; the
           UNet is told that the images' original and target size are 1024 x 1024, and the crop (0, 0)
Memory:    56.5 GB for state and teacher (22 bytes a parameter), over all devices; 1.6 GB less with
           --config.text.precompute=true, which takes the text encoders off them; more for an update: it shrinks with
           accumulation, the micro-batches of a batch of 256. One GPU of 80 GB is enough (docs/scale.md) with
           --config.mesh.fsdp=1 --config.remat=full --config.text.precompute=true, one image at a time
Cost:      18 forward passes of the UNet for each of 10 M images
Published: state of the art for SDXL at 1024 px in 1 to 4 steps at its time. What the paper leaves unsaid is set as for
           Stable Diffusion 1.5. For more diversity --config.guidance.strategy=zero_cfg (cost 11) or anti_cfg (16)
"""

import sd15_1step


def get_config():
    c = sd15_1step.get_config()
    c.teacher = "stabilityai/stable-diffusion-xl-base-1.0"
    c.resolution = 1024
    c.batch = 256
    return c
