"""The pixel teacher of digits that comes with the package, and its metric network.

Command:  python -m sid_jax.pretrain --config configs/edm_digits_teacher.py --out teacher
Data:     MNIST by tensorflow_datasets, or --config.data=FILE.npz (arrays `images` [N, 28, 28] uint8 and `labels` [N])
Hardware: 2 CPU cores
"""

from sid_jax.digits import pixels


def get_config():
    return pixels.default()
