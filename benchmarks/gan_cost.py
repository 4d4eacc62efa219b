"""What the GAN term costs: operations of the train step above those of the data-free step, in passes of the encoder.

The bar is one forward and one backward pass of the UNet's encoder for each real image, 3 forward passes. By default the
program that the compiler is given is counted, without compiling it; with --target the one that it makes.

  python benchmarks/gan_cost.py --config configs/sd15_1step_gan.py
  python benchmarks/gan_cost.py --config configs/sd15_1step_gan.py --target tpu:v5e:1x1 --config.batch=1
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp

import sid_jax.config
from sid_jax.experiment.networks import networks_of
from sid_jax.planning import hlo, targets
from sid_jax.planning.compile import compile_for
from sid_jax.planning.cost import cost_of
from sid_jax.planning.program import build_program, condition
from sid_jax.runtime.cli import command_line

STRATEGIES = ("lsg", "zero_cfg", "anti_cfg")


def main(argv=None):
    """The command."""
    parser = command_line.Parser("python benchmarks/gan_cost.py", __doc__)
    parser.add_argument("--target", help="what to compile for, such as tpu:v5e:1x1 (default: nothing is compiled)")
    parser.add_argument("--strategies", default=",".join(STRATEGIES), help="of guidance (default: %(default)s)")
    arguments, config = sid_jax.config.parse(parser, argv)
    target = targets.parse(arguments.target) if arguments.target else None
    config.unlock()
    config.batch = min(config.batch, 2)
    print("| strategy | data-free, TFLOP an image | with the GAN term | difference, encoder forward passes |")
    print("|---|---|---|---|")
    for strategy in arguments.strategies.split(","):
        config.guidance.strategy = strategy
        whole = flops(config, target)
        without = config.copy_and_resolve_references()
        without.gan.lambda_d = without.gan.lambda_g = 0.0
        free, encoder = flops(without, target), encoder_flops(config)
        images = config.batch
        print(
            f"| {strategy} | {free / images / 1e12:.3g} | {whole / images / 1e12:.3g} | "
            f"{(whole - free) / images / encoder:.3f} |",
            flush=True,
        )


def flops(config, target):
    """Operations of the train step in its last phase."""
    program = build_program(config, target.open()[:1] if target else jax.devices()[:1])
    lowered = program.step.lower(*program.arguments)
    if target is None:
        return cost_of(hlo.parse(lowered.as_text(dialect="hlo"))).flops
    cost = compile_for(target, lowered).cost
    return cost.flops + cost.kernel_flops


def encoder_flops(config):
    """Operations of the encoder for an image: the UNet's to its bottleneck, and the logits."""
    teacher = build_program(config, jax.devices()[:1]).teacher
    x_t = jax.ShapeDtypeStruct((1, *teacher.space.shape(config.resolution)), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.int32)
    network = networks_of(teacher, config.resolution).discriminator

    def encoder(params, x_t, t, cond):
        return network(params, x_t, t, cond, None)[1]

    lowered = jax.jit(encoder).lower(teacher.denoiser.whole, x_t, t, condition(teacher, config.resolution, 1))
    return cost_of(hlo.parse(lowered.as_text(dialect="hlo"))).flops


if __name__ == "__main__":
    sys.exit(command_line.run(main))
