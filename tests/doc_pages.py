"""The commands and snippets of README.md and docs/: where they stand, and what a test does with each."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]

LETTERS = 60  # of a block's first line


class Block(NamedTuple):
    """What stands between two fences: its page, its language, and its text."""

    page: str
    language: str
    text: str

    @property
    def name(self):
        """The page and how its first line begins, by which a block is known."""
        return f"{self.page}: {self.text.splitlines()[0][:LETTERS]}"


RUN = {
    "README.md: pip install -r requirements.txt && python -m sid_jax.train -",
    "README.md: pip install .",
    'README.md: pip install -U "jax[tpu]==0.10.2"        # on a TPU VM; "jax',
    'README.md: python -m sid_jax.sample --run runs/digits_1step --prompts "',
    "docs/distill_your_own.md: python -m sid_jax.train --config configs/sd15_1step.py --con",
    'docs/distill_your_own.md: python -m sid_jax.sample --run runs/NAME --prompts "a corgi ',
    "docs/edm.md: python -m sid_jax.convert edm-cifar10-32x32-cond-vp.pkl --ou",
    "docs/edm.md: python -m sid_jax.train --config configs/edm_cifar10_uncond_",
    "docs/edm.md: python -m sid_jax.sample --model edm-cifar10-32x32-cond-vp.p",
    "docs/edm.md: python -m sid_jax.export --run runs/NAME --out exported",
    "docs/edm.md: python -m sid_jax.dataset --source cifar-10-binary.tar.gz --",
    "docs/edm.md: python -m sid_jax.sample --model student --classes 0-9 --n 8",
    "docs/guidance.md: python -m sid_jax.train --config configs/sd15_1step_gan.py -",
    "docs/guidance.md: python -m sid_jax.encode --config configs/sd15_1step_gan.py ",
    "docs/python.md: import sid_jax",
    "docs/python.md: config = sid_jax.config.default()",
    'docs/python.md: found = sid_jax.measure("exported", samples=1000)',
    "docs/python.md: try:",
    "docs/scale.md: python -m sid_jax.plan --config configs/sd15_1step.py --meas",
}
"""Run as they stand, slowly, by test_docs_run.py: with small models of the same names, and configs that are shorter.
Commands of pip are left out."""

RUN_ELSEWHERE = {
    "README.md: import torch": "tests/test_export_command.py",
    "README.md: import sys": "tests/test_export_command.py",
}
"""Run as they stand by another test, which reads them from the page."""

CODE_OF_TESTS = "docs/families.md"
"""The page whose blocks of Python are code of the tests."""

A_FORMULA, PRINTED = "a formula", "what a command prints"
NOT_RUN = {
    'README.md: pip install "jax[cuda12]==0.10.2"        # or "jax[tpu]==0.1': (
        "compiles for GPUs: minutes, 10 GB, and a compiler that not every machine has; its flags are parsed, and "
        "tests/planning has plans"
    ),
    "README.md: batch          32: 4 image(s) a chip at a time, accumulation": PRINTED,
    "README.md: python -m pytest -m slow -n 0": "all slow tests, of which it would be one",
    "docs/edm.md: curl -fLO https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/ed": "downloads a teacher",
    "docs/edm.md: python -m sid_jax.train --config configs/edm_digits_1step.py": "trains for 20 minutes; it is parsed",
    "docs/evaluate.md: curl -fLO https://nvlabs-fi-cdn.nvidia.com/edm/fid-refs/cifa": (
        "downloads statistics; its flags are parsed"
    ),
    "docs/evaluate.md: python -m sid_jax.reference --protocol coco30k --images val2": "needs COCO; it is parsed",
    "docs/evaluate.md: python -m sid_jax.evaluate --images pictures --protocol coco": "needs COCO; it is parsed",
    "docs/evaluate.md: python -m sid_jax.reference --protocol ffhq64 --metric fd_di": "needs FFHQ; it is parsed",
    "docs/evaluate.md: python -m sid_jax.train --config configs/edm_cifar10_uncond_": "trains for days; it is parsed",
    "docs/python.md: report = sid_jax.measure(": (
        "needs EDM's statistics; tests/test_evaluate_protocol.py does so with others"
    ),
    'docs/families.md: NETWORK_TYPES["Toy"] = NetworkType(Toy, ToyConfig, "diffusio': (
        "changes tables for good; tests/toy_family.py does the same for a test"
    ),
    "docs/guidance.md: python -m benchmarks.guidance --config.images=25600 --strate": "trains for hours; it is parsed",
    "docs/method.md: x = 0": A_FORMULA,
    "docs/method.md: w      = 1 / max(mean_pixels |x_g - y_real|, 1e-5)          ": A_FORMULA,
    "docs/method.md: A: + lambda_d mean_b omega(t_b) [mean_group BCE(D(real_t), 1": A_FORMULA,
}
"""Not run, and why."""


def blocks():
    """All blocks of all pages, in their order."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for language, content in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            yield Block(page, language, content)


def commands_of(text):
    """The commands of a shell's block, each a list of words, without its comment."""
    for line in text.replace("\\\n", " ").splitlines():
        for command in line.split(" && "):
            if words := shlex.split(command, comments=True):
                yield words


def inline_commands(page):
    """The commands that stand in a sentence of a page, each a list of words; what is piped on is left out."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`([^`]+)`", text):
        if re.match(r"(python|pip|sid-jax|tensorboard|sbatch|([A-Z]+=\S+ )?launch/\S+) ", code):
            yield shlex.split(code.replace("\n", " ").partition(" | ")[0])
