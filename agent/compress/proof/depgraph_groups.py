"""What Torch-Pruning's graph says of layers whose channels our own trace cannot follow.

DepGraph (Fang et al., CVPR 2023) follows gradients, so it passes through operations that have no rule here. It knows
nothing of the order of channels: what it says holds only where silence proves it.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunefleet.agent.compress.cut import Slot, can_cut, parts, width
from prunefleet.agent.compress.depgraph import OPTYPE, tp
from prunefleet.agent.compress.trace.channel_sets import PRUNABLE
from prunefleet.agent.compress.walk import tensors

Index = tp._helpers._HybridIndex


@dataclass(frozen=True)
class DepGraphReach:
    """What a pruned channel takes with it, by DepGraph.

    `slots` are the layers' channels; the i-th root channel goes with all those of the same number in `tied`;
    `hindrance` says why they cannot be pruned at all.
    """

    slots: tuple[Slot, ...]
    tied: tuple[int, ...]
    hindrance: str | None


class DepGraphGroups:
    """A network as DepGraph traces it. Raises whatever DepGraph does of a network that it cannot trace."""

    def __init__(self, network: nn.Module, example_input: torch.Tensor) -> None:
        self.layers = {name: module for name, module in network.named_modules() if isinstance(module, PRUNABLE)}
        self._names: dict[Any, str] = {module: name for name, module in network.named_modules()}
        self._names |= {parameter: name for name, parameter in network.named_parameters()}
        self._input = nn.Parameter(example_input.detach().clone())
        # A parameter of three dimensions would be taken for a transformer's position embedding.
        self._graph, outputs = self._traced(network, [(self._input, 1)] if example_input.ndim != 3 else None)
        ends = {tensor.grad_fn for tensor in outputs}
        self._ends = [node for node in self._graph.module2node.values() if not node.outputs or node.grad_fn in ends]

    def _traced(self, network: nn.Module, known: Any) -> tuple[Any, list[torch.Tensor]]:
        """The graph, and the network's outputs."""
        modes, outputs = [(module, module.training) for module in network.modules()], []

        def run(network: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
            for module, training in modes:  # DepGraph has put all into evaluation mode
                module.training = training
            outputs.extend(tensors(network(image)))
            return outputs

        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # what it guesses about bare parameters is proven afterwards
            graph = tp.DependencyGraph().build_dependency(
                network, self._input, forward_fn=run, unwrapped_parameters=known, verbose=False
            )
        return graph, outputs

    def reach(self, name: str, channels: Sequence[int]) -> DepGraphReach:
        """What removing these output channels of the layer `name` would take with it."""
        root, ties = self._graph.module2node[self.layers[name]], _Ties(len(channels))
        reached: dict[tuple[Any, Any], dict[int, int]] = defaultdict(dict)
        stack = [(root, self._output_side(root), list(zip(channels, range(len(channels)), strict=True)))]
        while stack:
            node, side, pairs = stack.pop()
            if self._is_broadcast(node, side, pairs):
                continue
            known, new = reached[node, side], []
            for channel, number in self._with_ties(node, side, pairs):
                if channel in known:
                    ties.join(known[channel], number)
                else:
                    known[channel] = number
                    new.append(Index(idx=channel, root_idx=number))
            for edge in node.dependencies if new else ():
                if edge.is_triggered_by(side) and (there := _mapped(edge, new)):
                    stack.append((edge.target, edge.handler, there))
        slots = [self._slot(node, side, reached[node, side]) for node, side in reached if self._is_layer(node)]
        return DepGraphReach(tuple(slots), ties.classes(), self._hindrance(reached))

    def traced(self, name: str) -> bool:
        """Whether the forward pass uses the layer in a way that reaches the output."""
        return self.layers[name] in self._graph.module2node

    def _output_side(self, node: Any) -> Any:
        return self._graph.get_pruner_of_module(node.module).prune_out_channels

    def _is_layer(self, node: Any) -> bool:
        one_for_all = isinstance(node.module, nn.PReLU) and node.module.num_parameters == 1
        return node.module in self._names and not one_for_all

    def _is_broadcast(self, node: Any, side: Any, pairs: list[tuple[int, int]]) -> bool:
        """Whether the one channel of this layer meets many of another, as a spatial attention's does."""
        if not self._is_layer(node) or not can_cut(node.module, side == self._output_side(node)):
            return False
        one = width(node.module, side == self._output_side(node), node.pruning_dim) == 1
        return one and any(channel for channel, _ in pairs)

    def _with_ties(self, node: Any, side: Any, pairs: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Channels with their roots' numbers, and those that go with them so that a layer's equal parts stay equal."""
        whole, count = _partition(node, side == self._output_side(node))
        for channel, number in pairs:
            yield channel, number
            for part in range(1, count):
                yield (channel + part * (whole // count)) % whole, number

    def _slot(self, node: Any, side: Any, reached: Mapping[int, int]) -> Slot:
        return Slot(
            layer=self._names[node.module],
            out=side == self._output_side(node),
            channels=tuple(reached),
            roots=tuple(reached.values()),
            dim=node.pruning_dim if isinstance(node.module, nn.Parameter) else 0,
        )

    def _hindrance(self, reached: Mapping[tuple[Any, Any], Mapping[int, int]]) -> str | None:
        """Why channels that reach these nodes cannot be pruned."""
        for (node, side), channels in reached.items():
            out = side == self._output_side(node)
            if node.module is self._input:
                return "its channels are added to the network's input"
            if out and node in self._ends:
                return "it makes the network's output"
            if self._is_layer(node) and not can_cut(node.module, out):
                return f"its channels pass through {self._names[node.module]}, a {_kind(node.module)}"
            if self._is_layer(node) and max(channels) >= width(node.module, out, node.pruning_dim):
                return f"its channels do not line up with those of {self._names[node.module]}"
            if node.type == OPTYPE.CONCAT and node.enable_index_mapping and node.module.offsets is None:
                return "its channels are concatenated with something of unknown size"
            if node.type == OPTYPE.SPLIT and len(set(node.module.split_sizes or ())) > 1:
                return "its channels are split into unequal parts"
        return None


class _Ties:
    """Which numbers belong together: union-find, the least of a class standing for it."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def top(self, number: int) -> int:
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.top(one), self.top(other)))
        self._parent[high] = low

    def classes(self) -> tuple[int, ...]:
        return tuple(map(self.top, range(len(self._parent))))


def _kind(module: nn.Module) -> str:
    name = type(module).__name__
    return f"{name} of groups={module.groups}" if isinstance(module, nn.modules.conv._ConvNd) else name


def _partition(node: Any, out: bool) -> tuple[int, int]:
    """Width of the layer on that side, and into how many equal parts the network's code or the layer divides it."""
    if node.type == OPTYPE.SPLIT:
        sizes = node.module.split_sizes or ()
        return (sum(sizes), len(sizes)) if node.enable_index_mapping and len(set(sizes)) == 1 else (0, 1)
    return parts(node.module, out)


def _mapped(edge: Any, indices: list[Any]) -> list[tuple[int, int]]:
    """Channels of an edge's source, and their roots' numbers, as channels of its target."""
    for mapping in edge.index_mapping:
        if mapping is not None:
            indices = mapping(indices)
    return [(index.idx, index.root_idx) for index in indices]
