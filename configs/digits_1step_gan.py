"""The digits teacher distilled into one step, with a diffusion GAN on real digits.

Data:     pip install tensorflow-datasets==4.9.10 importlib_resources
          python -m sid_jax.digits.pairs --out data/tfds     (MNIST is downloaded; or from a file: --data FILE.npz)
Command:  python -m sid_jax.train --config configs/digits_1step_gan.py
Variants: --config.guidance.strategy=anti_cfg, or lsg
Hardware: 2 CPU cores, about 10 minutes
Compare:  python -m benchmarks.guidance; docs/guidance.md has its table
"""

import digits_1step


def get_config():
    c = digits_1step.get_config()
    c.real.source = "tfds:digit_pairs"
    c.real.data_dir = "data/tfds"

    # The teacher without guidance and the fake network without text: faithful to the prompt at the price of diversity,
    # some of which the GAN term brings back. Other weights and schedules: docs/guidance.md.
    c.guidance.strategy = "zero_cfg"
    c.guidance.kappa4 = None  # as the strategy says
    c.gan.lambda_d = 5.0
    c.gan.lambda_g = 1.0
    # First the fake network learns to be what the strategy takes it for: with "anti_cfg" the student would else be
    # guided strongly, and come out less diverse. The discriminator, too, is worth listening to after a while only.
    c.gan.freeze = 2_880  # 45 updates
    c.gan.start = 3_200  # 50
    return c
