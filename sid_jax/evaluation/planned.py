"""What the feature networks of a run's protocol take of a chip's memory, for `plan`."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from sid_jax.evaluation.clip_features import streamed_clip
from sid_jax.evaluation.clip_networks import described_clip
from sid_jax.evaluation.clip_variants import VARIANTS
from sid_jax.evaluation.dinov2_features import SIDE, described_dinov2, streamed_dinov2
from sid_jax.evaluation.features import abstract_inception, features_of
from sid_jax.evaluation.in_training import measures_of
from sid_jax.evaluation.sources import at_a_time
from sid_jax.evaluation.streamed import Streamed
from sid_jax.planning.compile import Memory, compile_for
from sid_jax.planning.targets import Target
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.size import size_of


def feature_networks_memory(config: ConfigDict, target: Target) -> dict[str, Memory]:
    """Bytes of one chip that each network takes when it looks at a batch, as training measures it.

    Args:
      config: the run's.
      target: what it is compiled for.

    Returns:
      by the network and its input, such as "inception tf1"; empty where the run measures nothing by a protocol.

    Raises:
      UserError: a network that the config names is not there, or is another one.
    """
    looks = dict.fromkeys((each.network, each.variant) for each in measures_of(config))
    if not looks:
        return {}
    mesh = meshes.make_mesh(config.mesh.data, config.mesh.fsdp, target.open())
    batch = mesh.size * at_a_time(config.resolution, config.evaluate.batch).together
    found = {}
    for network, variant in looks:
        found[f"{network} {variant}"] = _MEMORY[network](config, variant, target, mesh, batch)
    return found


def with_feature_networks(figures: dict[str, Any], networks: Mapping[str, Memory]) -> dict[str, Any]:
    """The figures of a plan, with the networks': their parameters stay on the chip beside the train step.

    Args:
      figures: as `planning.report.measure` has them.
      networks: what each takes, one after the other.
    """
    if not networks:
        return figures
    step = figures["bytes_per_chip"]
    stay = sum(memory.arguments for memory in networks.values())
    measuring = step["arguments"] + stay + max(memory.peak - memory.arguments for memory in networks.values())
    peak = max(step["peak"] + stay, measuring)
    each = {name: memory.arguments for name, memory in networks.items()}
    return figures | {
        "feature_networks": {"arguments": stay, "each": each, "measuring": measuring},
        "bytes_per_chip": step | {"peak": peak},
        "fits": peak <= figures["chip_bytes"],
    }


def _inception(config: ConfigDict, variant: str, target: Target, mesh: jax.sharding.Mesh, batch: int) -> Memory:
    graph, params = nnx.split(abstract_inception(meshes.platform(mesh) == "cpu"))
    whole = meshes.replicated(mesh)
    program = jax.jit(functools.partial(features_of, graph, variant), out_shardings=whole)
    images = meshes.abstract(_images(batch, size_of(config.resolution)), meshes.batch_sharding(mesh))
    return compile_for(target, program.lower(meshes.abstract(params, whole), images)).memory


def _dinov2(config: ConfigDict, variant: str, target: Target, mesh: jax.sharding.Mesh, batch: int) -> Memory:
    del variant
    network = streamed_dinov2(described_dinov2(config.evaluate.dinov2), mesh)
    return _of_streamed(network, target, _images(batch, (SIDE, SIDE)))


def _clip(config: ConfigDict, variant: str, target: Target, mesh: jax.sharding.Mesh, batch: int) -> Memory:
    score, component = VARIANTS[variant], described_clip(VARIANTS[variant], config.evaluate.clip)
    side = component.config.vision_config.image_size
    height, width, _ = score.on_host(np.zeros((*size_of(config.resolution), 3), np.uint8), side).shape
    ids = jax.ShapeDtypeStruct((batch, component.config.text_config.max_position_embeddings), np.int32)
    return _of_streamed(streamed_clip(component, score, mesh), target, _images(batch, (height, width)), ids)


_MEMORY = {"inception": _inception, "dinov2": _dinov2, "clip": _clip}


def _of_streamed(network: Streamed, target: Target, *batch: jax.ShapeDtypeStruct) -> Memory:
    begin, *layers, end = (compile_for(target, lowered).memory for lowered in network.lower(*batch))
    # While a layer of one stack runs, the weights of the next one wait, and what is in the other stack.
    in_layers = begin.outputs + network.sent + max(layer.peak for layer in layers)
    running = max(begin.peak - begin.arguments, in_layers, begin.outputs + end.peak - end.arguments)
    peak = network.resident + running
    return Memory(network.resident, end.outputs, aliased=0, temporaries=running - end.outputs, peak=peak)


def _images(batch: int, size: tuple[int, int]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((batch, *size, 3), np.uint8)
