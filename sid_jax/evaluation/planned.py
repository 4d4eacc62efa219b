"""What the feature network of a run's protocol takes of a chip's memory, for `plan`."""

import functools
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from sid_jax.evaluation.features import abstract_inception, features_of
from sid_jax.evaluation.in_training import measures_of
from sid_jax.evaluation.sources import at_a_time
from sid_jax.planning.compile import Memory, compile_for
from sid_jax.planning.program import placed
from sid_jax.planning.targets import Target
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.size import size_of


def inception_memory(config: ConfigDict, target: Target) -> Memory | None:
    """Bytes of one chip that Inception takes when it looks at a batch, as training measures it.

    Args:
      config: the run's.
      target: what it is compiled for.

    Returns:
      None where the run measures nothing by Inception.
    """
    measure = next((each for each in measures_of(config) if each.network == "inception"), None)
    if measure is None:
        return None
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.fsdp, target.open())
    graph, params = nnx.split(abstract_inception())
    height, width = size_of(config.resolution)
    batch = mesh.size * (config.evaluate.batch or at_a_time(config.resolution))
    program = functools.partial(features_of, graph, measure.variant)
    images = jax.ShapeDtypeStruct((batch, height, width, 3), np.uint8)
    arguments = placed(params, meshes.replicated(mesh)), placed(images, meshes.batch_sharding(mesh))
    lowered = jax.jit(program, out_shardings=meshes.replicated(mesh)).lower(*arguments)
    return compile_for(target, lowered).memory


def with_feature_network(figures: dict[str, Any], memory: Memory | None) -> dict[str, Any]:
    """The figures of a plan, with the network's: its parameters stay on the chip beside the train step.

    Args:
      figures: as `planning.report.measure` has them.
      memory: of the network; None: there is none.
    """
    if memory is None:
        return figures
    step = figures["bytes_per_chip"]
    measuring = step["arguments"] + memory.peak
    peak = max(step["peak"] + memory.arguments, measuring)
    return figures | {
        "feature_network": {"arguments": memory.arguments, "temporaries": memory.temporaries, "measuring": measuring},
        "bytes_per_chip": step | {"peak": peak},
        "fits": peak <= figures["chip_bytes"],
    }
