"""Guidance strategies on the digits at the same budget: long and short guidance, Zero-CFG + GAN, Anti-CFG + GAN.

Long and short guidance has the scale that does best on the digits, 1.22. Each strategy is trained with each seed, as
`python -m sid_jax.train` does it, and measured on the same images. A run that is there is not trained again, and one
that was interrupted goes on, so that the command can be started again at any time. The table is of what there is, and
is printed after each run.

  python -m sid_jax.digits.pairs --out data/tfds
  python -m benchmarks.guidance
  python -m benchmarks.guidance --strategies lsg,zero_cfg --seeds 0 --workdir runs/short --config.images=6400
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from ml_collections import ConfigDict

import sid_jax.config
from sid_jax import train
from sid_jax.runtime.cli import command_line, config_file

STRATEGIES = {
    "lsg": "configs/digits_1step.py",
    "zero_cfg": "configs/digits_1step_gan.py",
    "anti_cfg": "configs/digits_1step_gan.py",
}
COLUMNS = {
    "frechet_distance": ("Frechet distance", "{:.2f} ± {:.2f}"),
    "prompt_accuracy": ("prompt accuracy", "{:.4f} ± {:.4f}"),
    "recall": ("recall", "{:.4f} ± {:.4f}"),
    "precision": ("precision", "{:.4f} ± {:.4f}"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m benchmarks.guidance", __doc__)
    parser.add_argument("--strategies", default=",".join(STRATEGIES), help="(default: %(default)s)")
    parser.add_argument("--seeds", default="0,1,2", help="(default: %(default)s)")
    parser.add_argument("--workdir", default="runs/guidance", help="folder of the runs (default: %(default)s)")
    arguments, overrides = parser.parse_known_args(argv)
    unknown = [text for text in overrides if not text.startswith("--config.") or "=" not in text]
    if unknown:
        parser.error(f"unknown argument {unknown[0]}")
    folder = Path(arguments.workdir)
    for seed in map(int, arguments.seeds.split(",")):
        for strategy in arguments.strategies.split(","):
            run = folder / f"{strategy}-{seed}"
            if not (run / "table.json").exists():
                train.train(config_of(strategy, seed, overrides), str(run))
            print(f"\n{as_markdown(folder)}\n", flush=True)


def config_of(strategy: str, seed: int, overrides: Sequence[str]) -> ConfigDict:
    """The config of a run. `overrides` are `--config.KEY=VALUE`; those of the GAN do not concern "lsg"."""
    pairs = [tuple(text.removeprefix("--config.").split("=", 1)) for text in overrides]
    pairs = [(key, value) for key, value in pairs if strategy != "lsg" or not key.startswith(("gan.", "real."))]
    guidance = [("guidance.strategy", strategy), ("guidance.kappa4", "none")]
    guidance += [("guidance.scale", "1.22")] if strategy == "lsg" else []
    pairs = [*guidance, ("seed", str(seed)), *pairs]
    return config_file.load(STRATEGIES[strategy], sid_jax.config.default(), pairs)


def as_markdown(folder: Path) -> str:
    """Mean and standard deviation over the seeds of each strategy, of what was measured so far; and the teacher."""
    rows = {}
    for strategy in STRATEGIES:
        tables = [json.loads(file.read_text()) for file in sorted(folder.glob(f"{strategy}-*/table.json"))]
        name = strategy if strategy == "lsg" else f"{strategy} + GAN"
        if tables:
            rows.setdefault("teacher, 50 steps", [tables[0]["teacher"]])
            rows[name] = [table["student"] for table in tables]
    lines = [f"| | seeds | {' | '.join(title for title, _ in COLUMNS.values())} |", "|---" * (2 + len(COLUMNS)) + "|"]
    for name, found in rows.items():
        values = {column: [row[column] for row in found] for column in COLUMNS}
        cells = [form.format(np.mean(values[c]), np.std(values[c])) for c, (_, form) in COLUMNS.items()]
        lines.append(f"| {name} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(command_line.run(main))
