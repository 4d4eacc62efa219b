"""Stable Diffusion 1.5, distilled into 2 steps at 512 px (Few-Step SiD, arXiv 2505.12674).

Command:   python -m sid_jax.train --config configs/sd15_2step.py --config.prompts=prompts.txt
Teacher:   as in configs/sd15_1step.py
Memory:    as configs/sd15_1step.py: the further steps are evaluated without a gradient
Cost:      19 forward passes of the UNet for each image, in the mean over the steps drawn
Published: state of the art for Stable Diffusion 1.5 in 1 to 4 steps at its time
           What the paper leaves unsaid is set as for one step. For more diversity
           --config.guidance.strategy=zero_cfg (cost 12) or anti_cfg (17)
"""

import sd15_1step


def get_config():
    c = sd15_1step.get_config()
    c.sid.num_steps = 2
    c.sid.t_init = 999
    c.sid.loss_scale = 100.0  # of several steps; 1 is that of one
    return c
