"""The UNet alone, compiled for accelerators that need not be here: forward and backward, or a whole training step.

Comparable with other implementations, which train the same network: the denoising loss of Stable Diffusion, bfloat16
computation over float32 weights that are sharded over all chips; with --adam the update by Adam with two moments too.

  python benchmarks/unet.py --config configs/sd15_1step.py --target tpu:v5e:2x2 --config.batch=4
  python benchmarks/unet.py --config configs/sd21base_1step.py --target tpu:v5p:4x4x4 --adam --config.batch=1024
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import optax

import sid_jax.config
from sid_jax.experiment.build import describe_teacher
from sid_jax.experiment.networks import networks_of
from sid_jax.planning import targets
from sid_jax.planning.compile import compile_for
from sid_jax.planning.cost import KERNEL_SHARE
from sid_jax.planning.program import condition, forward_flops
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.devices import mesh as meshes


def main(argv=None):
    """The command."""
    parser = command_line.Parser("python benchmarks/unet.py", __doc__)
    parser.add_argument("--target", required=True, help="what to compile for, such as tpu:v5e:2x2")
    parser.add_argument("--adam", action="store_true", help="with the optimizer's update")
    parser.add_argument("--hlo", metavar="FILE", help="write the compiled program's text here")
    arguments, config = sid_jax.config.parse(parser, argv)
    target = targets.parse(arguments.target)
    mesh = meshes.make_mesh(1, -1, target.open())
    teacher, _ = describe_teacher(config, mesh)

    lowered = lower(teacher, config, mesh, adam=arguments.adam)
    compiled = compile_for(target, lowered)
    if arguments.hlo:
        Path(arguments.hlo).write_text(compiled.text)
    print(table(target, compiled, 3 * forward_flops(teacher, config.resolution) * config.batch / target.count))


def table(target, compiled, floor):
    """The figures; `floor` is the FLOPs of three forward passes of a chip's images."""
    memory, cost = compiled.memory, compiled.cost
    rows = [("compiled in", f"{compiled.seconds:.0f} s"), ("peak", f"{memory.peak / 1e9:.2f} GB a chip")]
    if cost is not None:
        flops, seconds = cost.flops + cost.kernel_flops, compiled.run_seconds
        of_compiler = compiled.xla_bytes or cost.bytes
        rows += [
            ("temporaries", f"{memory.temporaries / 1e9:.2f} GB"),
            ("FLOPs", f"{flops / 1e12:.3f} T, {flops / floor:.3f} x three forward passes"),
            ("in kernels", f"{cost.kernel_flops / 1e12:.3f} T"),
            ("traffic", f"{of_compiler / 1e9:.1f} GB, without what kernels compute on the chip"),
            ("collectives", ", ".join(f"{kind} {size / 1e9:.2f} GB" for kind, size in cost.collectives.items())),
            ("estimate", f"{1e3 * (seconds - cost.kernel_seconds):.1f} ms without kernels"),
            ("", f"{1e3 * seconds:.1f} ms with them at {KERNEL_SHARE:.0%} of the peak"),
            ("utilisation", f"{floor / seconds / target.chip.flops:.1%} with them"),
        ]
    return "\n".join(f"{name:<12} {value}" for name, value in rows)


def lower(teacher, config, mesh, *, adam):
    """The lowered function of the parameters (and moments) and a batch."""
    networks = networks_of(teacher, config.resolution, mesh)
    params = teacher.denoiser.params
    split = meshes.parameter_shardings(params, mesh)
    state = meshes.abstract(params, split)
    batch = meshes.batch_sharding(mesh)
    x_t = jax.ShapeDtypeStruct((config.batch, *teacher.space.shape(config.resolution)), jnp.float32, sharding=batch)
    t = jax.ShapeDtypeStruct((config.batch,), jnp.int32, sharding=batch)
    cond = meshes.abstract(condition(teacher, config.resolution, config.batch), batch)

    def loss(params, x_t, t, cond):
        prediction = networks.denoiser(params, x_t, t, cond, None).astype(jnp.float32)
        return jnp.mean(jnp.square(prediction - x_t))

    def train(params, moments, *inputs):
        value, gradients = jax.value_and_grad(loss)(params, *inputs)
        updates, moments = optimizer.update(gradients, moments, params)
        return value, optax.apply_updates(params, updates), moments

    if not adam:
        whole = meshes.replicated(mesh)
        return jax.jit(jax.value_and_grad(loss), out_shardings=(whole, split)).lower(state, x_t, t, cond)
    optimizer = optax.adamw(1e-5)
    moments = jax.eval_shape(optimizer.init, params)
    where = meshes.parameter_shardings(moments, mesh)
    step = jax.jit(train, donate_argnums=(0, 1), out_shardings=(meshes.replicated(mesh), split, where))
    return step.lower(state, meshes.abstract(moments, where), x_t, t, cond)


if __name__ == "__main__":
    sys.exit(command_line.run(main))
