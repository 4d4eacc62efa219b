"""One iteration of SiD on this machine's CPU against the same iteration in PyTorch, on the same cores.

Both have the same networks with random weights, float32, and do the same work: update A, update B, both of Adam's
updates and the moving average. They take turns, so that whatever else the machine does falls on both; what counts is
the ratio of the medians. PyTorch's UNet is diffusers', its network of EDM the tests' own.

  python -m benchmarks.step_cpu --network sd_small
  python -m benchmarks.step_cpu --network cifar10 --batch 4 --repeats 5
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from benchmarks.turns import medians, seconds_by_turns
from sid_jax import sid
from sid_jax.digits.networks import SCHEDULER, initialised
from sid_jax.families.edm_published import PUBLISHED
from sid_jax.families.schedulers import process_of
from sid_jax.models import Execution
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.devices.jax_settings import quicken_cpu
from sid_jax.teachers import build

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import torch_edm
import torchvision_beside_cpu_torch

torchvision_beside_cpu_torch.install()
from diffusers import UNet2DConditionModel  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, and what both sides are told of it.

    class_name, fields: of its configuration.
    shape: (H, W, C) of what is diffused.
    process, times, start: of the method; start is the time that the generator works at.
    guidance: the four scales.
    """

    class_name: str
    fields: dict[str, Any]
    shape: tuple[int, int, int]
    process: sid.Process
    times: Any
    start: float
    guidance: sid.Guidance = dataclasses.field(default_factory=sid.Guidance)


def unet(channels: tuple[int, ...], layers: int, width: int, side: int, groups: int) -> dict[str, Any]:
    """The configuration of a UNet with 8 heads, and text of a width."""
    lower = len(channels) - 1
    return {
        "act_fn": "silu", "attention_head_dim": 8, "block_out_channels": list(channels), "cross_attention_dim": width,
        "down_block_types": ["CrossAttnDownBlock2D"] * lower + ["DownBlock2D"], "in_channels": 4, "out_channels": 4,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * lower, "layers_per_block": layers,
        "norm_num_groups": groups, "sample_size": side,
    }  # fmt: skip


def stable_diffusion(fields: dict[str, Any]) -> Case:
    """Distilled under "lsg"."""
    side, lsg = fields["sample_size"], sid.Guidance(1.5, 1.5, 1.5, 1.5)
    return Case(
        "UNet2DConditionModel", fields, (side, side, 4), process_of(SCHEDULER), sid.Uniform(20, 980), 625, lsg
    )  # fmt: skip


CASES: dict[str, Callable[[], Case]] = {
    "sd_small": lambda: stable_diffusion(unet((48, 64), 1, 64, 16, 8)),
    "sd_mid": lambda: stable_diffusion(unet((128, 256, 256), 2, 256, 32, 32)),
    "cifar10": lambda: Case(
        "EDMPrecond", PUBLISHED["edm-cifar10-32x32-uncond-vp"], (32, 32, 3), sid.EDM(), sid.LogNormalKarras(), 2.5
    ),
}
"""By name: UNets of 1.1 M and 34.9 M parameters under "lsg", which is 18 passes for an image, and EDM's network for
CIFAR-10, 11 passes, with its dropout and without augmentation."""


def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m benchmarks.step_cpu", __doc__)
    parser.add_argument("--network", choices=CASES, default="sd_small", help="what is distilled (default: sd_small)")
    parser.add_argument("--batch", type=int, default=4, help="images (default: 4)")
    parser.add_argument("--repeats", type=int, default=5, help="iterations of each (default: 5)")
    arguments = parser.parse_args(argv)
    quicken_cpu()  # as the commands have it
    case = CASES[arguments.network]()
    sides = {"JAX": ours(case, arguments.batch), "PyTorch": theirs(case, arguments.batch)}
    seconds = seconds_by_turns(sides, arguments.repeats)
    median = medians(seconds)
    for name, each in seconds.items():
        print(f"{name:<8} {median[name]:8.3f} s an iteration, {min(each):.3f} to {max(each):.3f}")
    print(f"JAX takes {median['JAX'] / median['PyTorch']:.2f} times as long")


def ours(case: Case, batch: int) -> Callable[[], None]:
    """An iteration by the program's own train step, on a state that it changes."""
    network = initialised(build(case.class_name, case.fields, execution=Execution()), 0)

    def denoiser(params: Any, x: jax.Array, t: jax.Array, cond: Any, dropout_key: jax.Array | None) -> jax.Array:
        module = nnx.merge(network.graphdef, params, network.constants)
        with jax.default_matmul_precision("highest"):
            return module(x, case.process.network_time(t), dropout_key=dropout_key, **cond)

    if case.class_name == "UNet2DConditionModel":
        text = np.random.default_rng(0).normal(size=(batch, 77, case.fields["cross_attention_dim"]))
        cond = {"encoder_hidden_states": jnp.asarray(text, jnp.float32)}
    else:
        cond = {"class_labels": jnp.full(batch, -1)}
    given = sid.Batch(cond, cond, jax.tree.map(lambda x: x[:1], cond))
    settings = sid.Settings(batch, case.shape, guidance=case.guidance)
    networks = sid.Networks(denoiser, drops_out=case.class_name != "UNet2DConditionModel")
    few_step = sid.FewStep(case.process, 1, case.start)
    step = sid.jit_train_step(networks, few_step, case.times, settings)
    held = {"state": sid.TrainState.create(network.params)}
    frozen = sid.Frozen(jax.tree.map(jnp.copy, network.params))

    def iterate() -> None:
        held["state"], metrics = step(held["state"], frozen, given)
        jax.block_until_ready((held["state"], metrics))

    return iterate


def theirs(case: Case, batch: int) -> Callable[[], None]:
    """The same in plain PyTorch, as the published loop goes through it."""
    torch.manual_seed(0)
    teacher, fake, generator, average = (torch_network(case) for _ in range(4))
    for each in (teacher, average):
        each.eval().requires_grad_(False)
    adams = [torch.optim.Adam(net.parameters(), lr=1e-6, betas=(0.0, 0.999), eps=1e-6) for net in (fake, generator)]
    scale, sigma, predict = torch_process(case)
    height, width, channels = case.shape
    cond = empty = None
    if case.guidance.kappa1 != 1:
        cond, empty = (torch.randn(batch, 77, case.fields["cross_attention_dim"]) for _ in range(2))

    def image(net: torch.nn.Module, x: torch.Tensor, t: torch.Tensor, kappa: float) -> torch.Tensor:
        """What a network says of the image, guided."""
        found = predict(net, x, t, cond)
        if kappa == 1:
            return found
        without = predict(net, x, t, empty)
        return without + kappa * (found - without)

    def noisy(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        t = torch.randint(20, 980, (batch,))
        return scale(t) * x + sigma(t) * torch.randn_like(x), t

    def generate() -> torch.Tensor:
        t = torch.full((batch,), 625)
        return predict(generator, sigma(t) * torch.randn(batch, channels, height, width), t, cond)

    def update(adam: torch.optim.Adam, loss: torch.Tensor, net: torch.nn.Module) -> None:
        adam.zero_grad()
        loss.backward(inputs=list(net.parameters()))
        adam.step()

    def iterate() -> None:
        with torch.no_grad():
            x = generate()
        x_t, t = noisy(x)
        update(adams[0], (image(fake, x_t, t, case.guidance.kappa1) - x).square().sum() / batch, fake)
        x = generate()
        x_t, t = noisy(x)
        real, made = image(teacher, x_t, t, case.guidance.kappa4), image(fake, x_t, t, case.guidance.kappa2)
        with torch.no_grad():
            weight = 1 / (x - real).abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-5)
        difference = real - made
        update(adams[1], (weight * difference * ((real - x) - difference)).sum() / batch, generator)
        with torch.no_grad():
            for old, new in zip(average.parameters(), generator.parameters(), strict=True):
                old.lerp_(new, 0.1)

    return iterate


def torch_network(case: Case) -> torch.nn.Module:
    if case.class_name == "UNet2DConditionModel":
        return UNet2DConditionModel(**case.fields)
    return torch_edm.varied(torch_edm.PRECONDITIONERS[case.class_name](**case.fields))


def torch_process(case: Case) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """a_t, s_t and what a network says of the image, by the numbers 0 to 999 of times."""
    if case.class_name == "UNet2DConditionModel":
        bars = torch.tensor(case.process.alphas_cumprod)
        scale = lambda t: bars[t].sqrt()[:, None, None, None]  # noqa: E731
        sigma = lambda t: (1 - bars[t]).sqrt()[:, None, None, None]  # noqa: E731
        return scale, sigma, lambda net, x, t, cond: (x - sigma(t) * net(x, t, cond).sample) / scale(t)
    sigmas = lambda t: (0.002 ** (1 / 7) + t / 999 * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7  # noqa: E731
    return lambda t: 1.0, lambda t: sigmas(t)[:, None, None, None], lambda net, x, t, cond: net(x, sigmas(t))


if __name__ == "__main__":
    sys.exit(command_line.run(main))
