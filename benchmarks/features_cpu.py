"""Inception's features on this machine's CPU against torch-fidelity's, on the same cores.

Both have the same random weights and make the features of the same images, bytes to 2048 numbers, in float32. They take
turns, so that whatever else the machine does falls on both; what counts is the ratio of the medians.

  python -m benchmarks.features_cpu
  python -m benchmarks.features_cpu --batch 32 --side 512 --repeats 3
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sid_jax.evaluation.features import InceptionFeatures, open_inception
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.devices.mesh import make_mesh

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import torchvision_beside_cpu_torch

torchvision_beside_cpu_torch.install()
import torch_inception  # noqa: E402


def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m benchmarks.features_cpu", __doc__)
    parser.add_argument("--batch", type=int, default=16, help="images at a time (default: 16)")
    parser.add_argument("--side", type=int, default=64, help="pixels of an image's side (default: 64)")
    parser.add_argument("--repeats", type=int, default=5, help="batches of each (default: 5)")
    arguments = parser.parse_args(argv)
    images = torch_inception.pictures(arguments.batch, arguments.side, arguments.side)
    sides: dict[str, Callable[[], np.ndarray]] = {"JAX": ours(images), "PyTorch": theirs(images)}
    found = [features() for features in sides.values()]  # compiles, and fills caches
    difference = np.abs(found[0] - found[1]).max() / found[1].std()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.repeats):
        for name, features in sides.items():
            begin = time.perf_counter()
            features()
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    for name, each in seconds.items():
        speeds = [arguments.batch / each for each in (medians[name], max(each), min(each))]
        print(f"{name:<8} {speeds[0]:6.2f} images/s, {speeds[1]:.2f} to {speeds[2]:.2f}")
    print(f"JAX makes {medians['PyTorch'] / medians['JAX']:.2f} times as many images/s; features differ by at most")
    print(f"{difference:.1e} of their standard deviation")


def ours(images: np.ndarray) -> Callable[[], np.ndarray]:
    """By the program that `evaluate` runs."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(torch_inception.state_dict(), Path(folder, "inception.pth"))
        program = InceptionFeatures(open_inception(Path(folder, "inception.pth")), "tf1", make_mesh())
    return lambda: program(images)[0]


def theirs(images: np.ndarray) -> Callable[[], np.ndarray]:
    """By torch-fidelity's network, as its commands call it."""
    network = torch_inception.network()
    network.features_list = ["2048"]
    as_tensor = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    @torch.no_grad()
    def features() -> np.ndarray:
        (found,) = network(as_tensor)
        return found.numpy()

    return features


if __name__ == "__main__":
    sys.exit(command_line.run(main))
