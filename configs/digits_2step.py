"""The bundled digits teacher, distilled into 2 steps.

Command:  python -m sid_jax.train --config configs/digits_2step.py
Hardware: 2 CPU cores
"""

import digits_4step


def get_config():
    c = digits_4step.get_config()
    c.sid.num_steps = 2
    return c
