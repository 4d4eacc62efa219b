"""Memory of the host while a teacher is loaded and a run's state is made: how much more than what stays.

A UNet of Stable Diffusion 1.5's shape is written in float32 with random weights, and read as `train` reads it, each
time in a process of its own. On the CPU the devices' memory is the host's: the peak of the process, less what it had
before and what the devices hold after, is what loading takes besides. The bar is 2 GB.

  python benchmarks/loading.py                    the teacher alone, whole: 4 GB of memory
  python benchmarks/loading.py --state            and the state, 22 bytes a parameter: 20 GB of memory
  python benchmarks/loading.py --state --width 2  of a UNet with half of the channels: 6 GB of memory
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sid_jax.experiment.networks import new_state
from sid_jax.families.published import PublishedConfigs
from sid_jax.formats.safetensors_files import write_weights
from sid_jax.formats.state_dict import Stored, layout
from sid_jax.models.registry import NETWORK_TYPES
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.sid import Optimizer
from sid_jax.teachers import build, open_component

CLASS = "UNet2DConditionModel"
CASES = {
    "teacher, stored in float32": lambda unet, mesh: load(unet, mesh, jnp.float32),
    "teacher, stored in bfloat16": lambda unet, mesh: load(unet, mesh, jnp.bfloat16),
    "state and teacher": lambda unet, mesh: new_state(load(unet, mesh, jnp.float32), Optimizer(), jnp.bfloat16, mesh),
}


def main(argv=None):
    """The command."""
    parser = command_line.Parser("python benchmarks/loading.py", __doc__)
    parser.add_argument("--state", action="store_true", help="make the state too")
    parser.add_argument("--width", type=int, default=1, help="what the UNet's channels are divided by (default: 1)")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "CASE"), help="one row, as JSON: used by this command")
    arguments = parser.parse_args(argv)
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    print("| what | devices | parameters | stays, GB | peak besides, GB | seconds |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        count = write_unet(Path(folder), arguments.width)
        for case in list(CASES)[: None if arguments.state else 2]:
            for devices in (1, 8):
                simulated = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
                command = [sys.executable, __file__, "--measure", folder, case]
                done = subprocess.run(command, env=os.environ | simulated, check=True, stdout=subprocess.PIPE)
                row = json.loads(done.stdout)
                print(
                    f"| {case} | {devices} | {count:,} | {row['stays'] / 1e9:.2f} | {row['besides'] / 1e9:.2f} | "
                    f"{row['seconds']:.0f} |",
                    flush=True,
                )


def write_unet(folder, width):
    """Writes the network, a tensor at a time, and returns how many parameters it has."""
    fields = PublishedConfigs("sd15").config("unet")
    channels = [channels // width for channels in fields["block_out_channels"]]
    component = build(CLASS, {**fields, "block_out_channels": channels})
    (folder / "config.json").write_text(json.dumps(component.config_json))
    stored = {name: Stored(slot.shape, "float32") for name, slot in layout(component.module).items()}
    rng = np.random.default_rng(0)
    tensors = ((name, rng.standard_normal(entry.shape, np.float32)) for name, entry in stored.items())
    write_weights(folder, NETWORK_TYPES[CLASS].stem, stored, tensors)
    return sum(leaf.size for leaf in jax.tree.leaves(component.params))


def load(unet, mesh, dtype):
    """The parameters, in shards over all devices."""
    return unet.load(dtype=None, place=meshes.into_shards(mesh, dtype)).params


def measure(folder, case):
    """Bytes that stay on the devices, bytes that the process held besides at its peak, and seconds."""
    mesh = meshes.make_mesh(1, -1)
    unet = open_component(Path(folder), CLASS)
    jax.block_until_ready(meshes.place(np.zeros(8), meshes.replicated(mesh)))
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what there is now
    began = time.perf_counter()
    kept = jax.block_until_ready(CASES[case](unet, mesh))
    seconds = time.perf_counter() - began
    stays = sum(shard.data.nbytes for leaf in jax.tree.leaves(kept) for shard in leaf.addressable_shards)
    return {"stays": stays, "besides": memory("VmHWM") - before - stays, "seconds": seconds}


def memory(field):
    """A figure of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    sys.exit(command_line.run(main))
