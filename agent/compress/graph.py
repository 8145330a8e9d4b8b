"""A network as a graph of layers, and which channels of which layers live and die together.

DepGraph (Fang et al., CVPR 2023) traces the network; the walk along its edges is ours, channel by channel, so that ties
inside one layer (grouped convolutions, equal parts of a split) are seen and nothing depends on the order of pruning.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import nn

from prunefleet.agent.compress.cut import Slot, can_cut, parts, width
from prunefleet.agent.compress.depgraph import OPTYPE, tp
from prunefleet.objective.errors import BadInput

PRUNABLE = (nn.modules.conv._ConvNd, nn.Linear)
Index = tp._helpers._HybridIndex


@dataclass(frozen=True)
class Reach:
    """What a pruned channel takes with it.

    `slots` are the layers' channels; the i-th root channel goes with all those of the same number in `tied`;
    `hindrance` says why they cannot be pruned at all.
    """

    slots: tuple[Slot, ...]
    tied: tuple[int, ...]
    hindrance: str | None


class Graph:
    """A traced network. Keeps the network it was made of; `order` gives each module's place in the forward pass."""

    def __init__(self, network: nn.Module, example_input: torch.Tensor) -> None:
        self.order, _ = run_once(network, example_input)
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

        with named_failures(self._names), torch.enable_grad():
            graph = tp.DependencyGraph().build_dependency(
                network, self._input, forward_fn=run, unwrapped_parameters=known, verbose=False
            )
        return graph, outputs

    def reach(self, name: str, channels: Sequence[int]) -> Reach:
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
        return Reach(tuple(slots), ties.classes(), self._hindrance(reached))

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


def tensors(value: object) -> list[torch.Tensor]:
    """All tensors in what a network returns, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for each in inner for tensor in tensors(each)]


def run_once(network: nn.Module, example_input: torch.Tensor) -> tuple[dict[str, int], list[torch.Tensor]]:
    """One forward pass: the position of each module's first call, and all tensors that come out.

    Raises `BadInput` naming the layer that failed.
    """
    calls = _Calls()
    hooks = [
        hook
        for name, module in network.named_modules()
        for hook in (
            module.register_forward_pre_hook(partial(calls.enter, name)),
            module.register_forward_hook(calls.leave),
        )
    ]
    try:
        with torch.no_grad():
            return calls.order, tensors(network(example_input))
    except Exception as error:
        shape = tuple(example_input.shape)
        raise BadInput(
            "network", calls.innermost, f"make it run on an input of shape {shape}: {_brief(error)}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()


class _Calls:
    """What runs while a network runs."""

    def __init__(self) -> None:
        self.order: dict[str, int] = {}
        self._entered: list[str] = []

    def enter(self, name: str, *_: object) -> None:
        self.order.setdefault(name, len(self.order))
        self._entered.append(name)

    def leave(self, *_: object) -> None:
        self._entered.pop()

    @property
    def innermost(self) -> str:
        """The innermost named module that was entered and not left."""
        return next((name for name in reversed(self._entered) if name), "forward")


def _brief(error: BaseException) -> str:
    """The error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


@contextmanager
def named_failures(names: Mapping[Any, str]) -> Iterator[None]:
    """Turn a failure inside DepGraph into `BadInput` that names the layer at which it happened."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it guesses about bare parameters is checked by running the result
            yield
    except BadInput:
        raise
    except Exception as error:
        layer = _failing_layer(error.__traceback__, names)
        remedy = f"DepGraph cannot trace it ({_brief(error)}): rewrite that operation or choose another network"
        raise BadInput("network", layer, remedy) from error


def _failing_layer(trace: TracebackType | None, names: Mapping[Any, str]) -> str:
    """The layer nearest to the graph node that DepGraph worked on when it failed."""
    node = None
    while trace is not None:
        here = trace.tb_frame.f_locals
        node = here.get("node", node)
        trace = trace.tb_next
    if node is None:
        return "forward"
    name = next((names[each.module] for each in _upstream(node) if each.module in names), "input")
    return name if node.module in names else f"{name} (the operation after it)"


def _upstream(node: Any) -> Iterator[Any]:
    """The node and all before it, the nearest first."""
    seen, queue = {id(node)}, [node]
    for each in queue:
        yield each
        new = [before for before in each.inputs if id(before) not in seen]
        seen.update(map(id, new))
        queue.extend(new)
