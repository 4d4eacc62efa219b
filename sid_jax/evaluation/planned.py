"""What the feature networks of a run's protocol take of a chip's memory, for `plan`."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from sid_jax.evaluation.clip_features import scores_of
from sid_jax.evaluation.clip_networks import described_clip
from sid_jax.evaluation.clip_variants import VARIANTS
from sid_jax.evaluation.dinov2_features import SIDE, described_dinov2, dinov2_features_of
from sid_jax.evaluation.features import abstract_inception, features_of
from sid_jax.evaluation.in_training import measures_of
from sid_jax.evaluation.sources import at_a_time
from sid_jax.planning.compile import Memory, compile_for
from sid_jax.planning.program import placed
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
    batch = mesh.size * (config.evaluate.batch or at_a_time(config.resolution))
    found = {}
    for network, variant in looks:
        lowered = _LOWERED[network](config, variant, mesh, batch)
        found[f"{network} {variant}"] = compile_for(target, lowered).memory
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


def _inception(config: ConfigDict, variant: str, mesh: jax.sharding.Mesh, batch: int) -> jax.stages.Lowered:
    graph, params = nnx.split(abstract_inception(meshes.platform(mesh) == "cpu"))
    program = functools.partial(features_of, graph, variant)
    return _lowered(program, mesh, placed(params, meshes.replicated(mesh)), _images(batch, size_of(config.resolution)))


def _dinov2(config: ConfigDict, variant: str, mesh: jax.sharding.Mesh, batch: int) -> jax.stages.Lowered:
    del variant
    component = described_dinov2(config.evaluate.dinov2)
    params = placed(component.whole, meshes.parameter_shardings(component.whole, mesh))
    return _lowered(functools.partial(dinov2_features_of, component, mesh), mesh, params, _images(batch, (SIDE, SIDE)))


def _clip(config: ConfigDict, variant: str, mesh: jax.sharding.Mesh, batch: int) -> jax.stages.Lowered:
    score, component = VARIANTS[variant], described_clip(VARIANTS[variant], config.evaluate.clip)
    params = placed(component.whole, meshes.parameter_shardings(component.whole, mesh))
    side = component.config.vision_config.image_size
    height, width, _ = score.on_host(np.zeros((*size_of(config.resolution), 3), np.uint8), side).shape
    ids = jax.ShapeDtypeStruct((batch, component.config.text_config.max_position_embeddings), np.int32)
    program = functools.partial(scores_of, score, component, None, mesh, side)
    return _lowered(program, mesh, (params, None), _images(batch, (height, width)), ids)


_LOWERED = {"inception": _inception, "dinov2": _dinov2, "clip": _clip}


def _lowered(program: Any, mesh: jax.sharding.Mesh, params: Any, *batch: jax.ShapeDtypeStruct) -> jax.stages.Lowered:
    split = placed(batch, meshes.batch_sharding(mesh))
    return jax.jit(program, out_shardings=meshes.replicated(mesh)).lower(params, *split)


def _images(batch: int, size: tuple[int, int]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((batch, *size, 3), np.uint8)
