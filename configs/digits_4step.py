"""The bundled digits teacher, distilled into 4 steps.

Command:  python -m sid_jax.train --config configs/digits_4step.py
Hardware: 2 CPU cores
"""

import digits_1step


def get_config():
    c = digits_1step.get_config()
    c.sid.num_steps = 4
    c.sid.t_init = 999
    return c
