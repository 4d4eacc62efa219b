"""What a run survives: each fault is done to runs of a tiny teacher, and what is left is compared with a run to which
nothing was done, to the bit: parameters, optimizer state, average, data position, and the lines of the metrics.

Command:  python -m benchmarks.faults --out docs/reliability.md
Hardware: 2 CPU cores, about half an hour; nothing is needed but what is installed
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# Small programs take longer to compile than to run: LLVM's optimisations are left out, before JAX starts.
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["JAX_PLATFORMS"] = "cpu"

from benchmarks import checkpoint_faults, run_faults
from benchmarks.runs import Runs, in_a_process
from benchmarks.table import Row, write_table
from sid_jax.digits.tiny import write_tiny
from sid_jax.runtime.devices.jax_settings import quicken_cpu

GROUPS: dict[str, Callable[[Runs, random.Random, int], list[Row]]] = {
    "kills": run_faults.kills,
    "preemption": run_faults.preemption,
    "told": run_faults.told_early_and_late,
    "terminals": run_faults.terminals,
    "saves": run_faults.kills_while_saving,
    "checkpoints": checkpoint_faults.damaged,
    "unread": checkpoint_faults.not_read_back,
    "workers": run_faults.workers_lost,
    "disk": run_faults.full_disk,
    "names": run_faults.odd_names,
    "removed": run_faults.removed,
    "owner": run_faults.second_process,
    "mount": run_faults.checkpoints_not_mounted,
    "prompts": run_faults.prompts,
    "teacher": run_faults.another_teacher,
    "numerics": run_faults.numerics,
    "files": checkpoint_faults.strangers,
    "export": run_faults.killed_exports,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--out", default="docs/reliability.md", help="the page whose table is replaced")
    parser.add_argument("--only", default=",".join(GROUPS), help=f"some of {', '.join(GROUPS)}")
    parser.add_argument("--kills", type=int, default=24, help="kill -9 at random moments")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", help="a folder to keep, and to go on in; by default a temporary one")
    arguments = parser.parse_args(argv)
    quicken_cpu()  # as the commands have it that are started from outside, whose runs are compared with those from here
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.work or temporary)
        (folder / "tiny").mkdir(parents=True, exist_ok=True)
        if not (folder / "tiny" / "teacher").exists():
            in_a_process(lambda: write_tiny(folder / "tiny"))
        runs = Runs(folder)
        for group in arguments.only.split(","):
            began = time.monotonic()
            rows = GROUPS[group](runs, random.Random(f"{group}{arguments.seed}"), arguments.kills)
            (folder / f"{group}.json").write_text(json.dumps(rows))
            print(f"{group}: {time.monotonic() - began:.0f} s; {rows}", flush=True)
        found = [folder / f"{group}.json" for group in GROUPS]
        write_table(Path(arguments.out), [Row(*row) for f in found if f.exists() for row in json.loads(f.read_text())])
    return 0


if __name__ == "__main__":
    sys.exit(main())
