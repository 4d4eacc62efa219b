"""The bundled digits teacher, distilled into one step.

Command:  python -m sid_jax.train --config configs/digits_1step.py
Hardware: 2 CPU cores
"""

import sid_jax.config


def get_config():
    c = sid_jax.config.default()
    c.teacher = "bundled:digits"
    c.prompts = "bundled:digits_prompts.txt"
    c.resolution = 32

    c.images = 32_000  # 500 updates
    c.batch = 64

    c.guidance.scale = 1.5

    # A thousand times fewer images than the published runs need a larger learning rate and a shorter average.
    c.optimizer.lr = 1e-4
    c.optimizer.glr = 1e-4
    c.optimizer.eps = 1e-8
    c.ema.half_life = 1_000
    c.precision.compute = "float32"
    c.precision.teacher = "float32"

    c.log_every = 10
    c.sample_every = 100
    c.sample_images = 50
    c.checkpoint_every = 100

    c.evaluate.metric = "bundled:digits_metric"
    c.evaluate.teacher_guidance = 1.5
    return c
