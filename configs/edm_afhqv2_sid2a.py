r"""AFHQv2 at 64 px, SiDA from a student of SiD on (SiD2A, arXiv 2410.14919).

Command:   python -m sid_jax.train --config configs/edm_afhqv2_sid2a.py \
               --config.real.source=afhqv2-64x64.zip --config.student=STUDENT
           STUDENT is a run of configs/edm_afhqv2_sid.py, its export, or a published network-snapshot-*.pkl.
           Generator and average begin as the student, the fake network as the teacher
Variants:  --config.sid.alpha=1.2, published too
Teacher:   as in configs/edm_afhqv2_sid.py
Memory:    as configs/edm_afhqv2_sida.py
Cost:      as configs/edm_afhqv2_sida.py
Published: FID 1.276, the best of SiDA and SiD2A; students after 175 M images at sid.alpha 1 as at 1.2
"""

import edm_afhqv2_sida


def get_config():
    c = edm_afhqv2_sida.get_config()
    c.images = 100_000_000
    c.student = "runs/edm_afhqv2_sid"
    return c
