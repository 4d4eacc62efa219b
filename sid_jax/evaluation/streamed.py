"""A large network of transformer layers that looks at images with few of its weights on the devices at a time."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.devices.gather import gather_weights
from sid_jax.teachers import Component

Stack = tuple[str, ...]
"""Where a network has a stack of equal layers: names of attributes, such as ("encoder", "layers")."""


class Streamed:
    """Runs a network whose layers' weights stay on the host; each layer's are sent while the layer before runs.

    CLIP's ViT-g/14 has 5.5 GB of weights in float32. So a device has 0.2 GB of them all the time, and those of two
    layers, 0.2 GB more, while it measures: there is room for them beside a generator that is trained.

    Args:
      component: the network, its parameters on the host (`on_host`); or abstract, then it can only be lowered.
      stacks: where its layers are.
      begin: (network without layers, *batch) -> what the first layer of each stack gets, a tuple of `[B, L, D]`; where
        it is shorter, the last stacks are not run.
      end: (network without layers, what the last layers give, *batch) -> the result.
      mesh: the devices; all their processes call this.
    """

    def __init__(
        self,
        component: Component,
        stacks: Sequence[Stack],
        begin: Callable[..., tuple[jax.Array, ...]],
        end: Callable[..., jax.Array],
        mesh: jax.sharding.Mesh,
    ) -> None:
        self._mesh = mesh
        network: Any = component.module
        self._stacks = [_taken_out(network, stack) for stack in stacks]
        graph, rest = nnx.split(network)
        shardings = meshes.parameter_shardings(rest, mesh)
        self._rest = meshes.place(rest, shardings) if component.loaded else meshes.abstract(rest, shardings)
        split, whole = meshes.batch_sharding(mesh), meshes.replicated(mesh)
        self._begin = jax.jit(functools.partial(_run, graph, mesh, begin), out_shardings=split)
        self._end = jax.jit(functools.partial(_run, graph, mesh, end), out_shardings=whole)
        self._layers = [
            jax.jit(functools.partial(_run, layer, mesh, lambda network, x: network(x)), out_shardings=split)
            for layer, _ in self._stacks
        ]

    def __call__(self, *batch: Any) -> jax.Array:
        """What `end` gives for a batch that is on the devices, split over them; every device has it whole."""
        states = self._begin(self._rest, *batch)
        passed = tuple(
            self._through(program, weights, x)
            for program, (_, weights), x in zip(self._layers, self._stacks, states, strict=False)
        )
        return self._end(self._rest, passed, *batch)

    def _through(self, program: Callable[..., jax.Array], layers: Sequence[nnx.State], x: jax.Array) -> jax.Array:
        for layer in layers:
            weights = meshes.place(layer, meshes.parameter_shardings(layer, self._mesh))
            x.block_until_ready()  # else the host would send all layers, and the devices have to keep them
            x = program(weights, x)
        return x

    def lower(self, *batch: Any) -> list[jax.stages.Lowered]:
        """Its programs for a batch, lowered and not compiled: the beginning, a layer of each stack, the end.

        Args:
          *batch: arrays, abstract or anywhere.
        """
        batch = meshes.abstract(batch, meshes.batch_sharding(self._mesh))
        states = jax.eval_shape(self._begin, self._rest, *batch)
        states = tuple(meshes.abstract(state, meshes.batch_sharding(self._mesh)) for state in states)
        layers = [
            program.lower(meshes.abstract(weights[0], meshes.parameter_shardings(weights[0], self._mesh)), state)
            for program, (_, weights), state in zip(self._layers, self._stacks, states, strict=False)
        ]
        return [self._begin.lower(self._rest, *batch), *layers, self._end.lower(self._rest, states, *batch)]

    @property
    def resident(self) -> int:
        """Bytes of the weights that each device has all the time."""
        return _bytes_of(self._rest, self._mesh)

    @property
    def sent(self) -> int:
        """Bytes of the largest layer's weights on a device: as much waits there while the layer before runs."""
        return max(_bytes_of(weights[0], self._mesh) for _, weights in self._stacks)


def on_host(component: Component) -> Component:
    """The network with its parameters in float32 on the host, read from its files one tensor at a time.

    Raises:
      UserError: a file is missing or damaged, or is of another network.
    """
    return component.load(jnp.float32, lambda path, array: np.asarray(array, np.float32))


def _taken_out(network: Any, stack: Stack) -> tuple[nnx.GraphDef, list[nnx.State]]:
    """The graph of a stack's layers, and the weights of each; the network has none afterwards."""
    *parents, name = stack
    owner = functools.reduce(getattr, parents, network)
    graphs, weights = zip(*map(nnx.split, getattr(owner, name)), strict=True)
    assert all(graph == graphs[0] for graph in graphs), "layers of a stack differ in their weights only"
    setattr(owner, name, nnx.List([]))
    return graphs[0], list(weights)


def _run(graph: nnx.GraphDef, mesh: jax.sharding.Mesh, function: Callable[..., Any], weights: Any, *inputs: Any) -> Any:
    with jax.default_matmul_precision("highest"):
        return function(gather_weights(nnx.merge(graph, weights), mesh), *inputs)


def _bytes_of(weights: Any, mesh: jax.sharding.Mesh) -> int:
    """What a device has of weights."""
    leaves, shardings = jax.tree.leaves(weights), jax.tree.leaves(meshes.parameter_shardings(weights, mesh))
    parts = (sharding.shard_shape(leaf.shape) for leaf, sharding in zip(leaves, shardings, strict=True))
    return sum(math.prod(part) * leaf.dtype.itemsize for part, leaf in zip(parts, leaves, strict=True))
