r"""ImageNet at 64 px with labels, SiDA from a student of SiD on (SiD2A, arXiv 2410.14919).

Command:   python -m sid_jax.train --config configs/edm_imagenet64_sid2a.py \
               --config.real.source=imagenet-64x64.zip --config.student=STUDENT
           STUDENT is a run of configs/edm_imagenet64_sid.py, its export, or a published network-snapshot-*.pkl.
           Generator and average begin as the student, the fake network as the teacher
Variants:  --config.sid.alpha=1.2, published too
Teacher:   as in configs/edm_imagenet64_sid.py
Memory:    as configs/edm_imagenet64_sida.py
Cost:      as configs/edm_imagenet64_sida.py
Published: FID 1.110, the best of SiDA and SiD2A; students after 29 M images at sid.alpha 1, or 21 M at 1.2
"""

import edm_imagenet64_sida


def get_config():
    c = edm_imagenet64_sida.get_config()
    c.images = 100_000_000
    c.student = "runs/edm_imagenet64_sid"
    return c
