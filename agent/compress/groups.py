"""Coupled layer groups of a network: the dimensions of the search. DepGraph (Fang et al., CVPR 2023) finds them.

All layers that write to one stream (a residual stage, say) lose the same channels, so they share one pruning ratio.
"""

import copy
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from objective.errors import BadInput
from objective.space import GroupSpec, levels

PRUNABLE = (nn.modules.conv._ConvNd, nn.Linear)


@dataclass(frozen=True)
class Group:
    """Layers that keep the same channels.

    `name` is stable: the first dense convolution (else linear layer) in forward order, in `[_a-zA-Z0-9]`. `width` is
    the number of channels, `members` the layers whose outputs are pruned together, `root` one of them. Kept channels
    must be a multiple of `multiple`, which is 1 except beside grouped convolutions and group norms.
    """

    name: str
    width: int
    members: tuple[str, ...]
    root: str
    multiple: int = 1


def find_groups(network: nn.Module, example_input: torch.Tensor, ignored: Sequence[str] = ()) -> tuple[Group, ...]:
    """The groups of `network` in forward order, without the layers that make its output and those `ignored` by name.

    `example_input`: [1, ...]. Leaves the network as it was. Raises `BadInput`, naming the layer, where the network
    does not run, cannot be traced, or has nothing to prune.
    """
    traced = copy.deepcopy(network).requires_grad_(True).eval()
    order = forward_order(traced, example_input)
    names = {module: name for name, module in traced.named_modules()}
    graph = _dependency_graph(traced, example_input, names)
    frozen = {names[head] for head in _heads(graph) if head in names} | _inside(traced, ignored)
    raw = graph.get_all_groups(
        ignored_layers=[traced.get_submodule(name) for name in frozen], root_module_types=PRUNABLE
    )
    found = sorted(_describe(graph, raw, names, order), key=lambda group: order[group.root])
    if not found:
        layers = ", ".join(sorted(frozen, key=lambda name: order.get(name, 0))) or type(network).__name__
        raise BadInput(
            "network", layers, "give a network with a convolution before its last layer: nothing to prune here"
        )
    return _unique(found)


def forward_order(network: nn.Module, example_input: torch.Tensor) -> dict[str, int]:
    """Position of each module's first call in one forward pass; raises `BadInput` naming the layer that failed."""
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
            network(example_input)
    except Exception as error:
        shape = tuple(example_input.shape)
        raise BadInput(
            "network", calls.innermost, f"make it run on an input of shape {shape}: {_brief(error)}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return calls.order


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


def _dependency_graph(network: nn.Module, example_input: torch.Tensor, names: dict[nn.Module, str]) -> Any:
    with named_failures(names), torch.enable_grad():
        # A tuple: given a bare tensor DepGraph first calls network(*tensor), which drops the batch dimension.
        return tp.DependencyGraph().build_dependency(network, example_inputs=(example_input,), verbose=False)


@contextmanager
def named_failures(names: dict[nn.Module, str]) -> Iterator[None]:
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


def _failing_layer(trace: TracebackType | None, names: dict[nn.Module, str]) -> str:
    """The layer nearest to the graph node that DepGraph worked on when it failed."""
    node = None
    while trace is not None:
        here = trace.tb_frame.f_locals
        node = here.get("node", node)
        trace = trace.tb_next
    if node is None:
        return "forward"
    found = _upstream(node, lambda each: each.module in names)
    name = names[found[0].module] if found else "input"
    return name if node.module in names else f"{name} (the operation after it)"


def _upstream(node: Any, wanted: Any) -> list[Any]:
    """The nearest nodes at or before `node` for which `wanted` holds, on every path."""
    found, seen, stack = [], set(), [node]
    while stack:
        each = stack.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if wanted(each):
            found.append(each)
        else:
            stack.extend(each.inputs)
    return found


def _heads(graph: Any) -> Iterable[nn.Module]:
    """The layers whose channels are the network's output: the nearest dense layers before each end of the graph."""
    for node in graph.module2node.values():
        if not node.outputs:
            yield from (each.module for each in _upstream(node, lambda one: _is_dense(one.module)))


def _is_dense(module: object) -> bool:
    """Whether the layer mixes channels, so that its outputs are its own: not depthwise."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.groups == 1 or module.groups != module.out_channels
    return isinstance(module, nn.Linear)


def _inside(network: nn.Module, ignored: Sequence[str]) -> set[str]:
    """Names of the prunable layers in the modules named; raises `BadInput` for a name that the network has not."""
    known = dict(network.named_modules())
    unknown = [name for name in ignored if name not in known]
    if unknown:
        raise BadInput("ignored", unknown[0], f"name a module of the network, such as {list(known)[-1]}")
    inside = {name: known[name] for top in ignored for name in known if name == top or name.startswith(top + ".")}
    return {name for name, module in inside.items() if isinstance(module, PRUNABLE)}


def _describe(graph: Any, raw: Iterable[Any], names: dict[nn.Module, str], order: dict[str, int]) -> Iterator[Group]:
    for group in raw:
        width = len(group[0].idxs)
        members = {
            names[dep.target.module]: dep.target.module
            for dep, idxs in group
            if graph.is_out_channel_pruning_fn(dep.handler)
            and isinstance(dep.target.module, PRUNABLE)
            and len(idxs) == width == graph.get_out_channels(dep.target.module)
        }
        if width < 2 or not members:
            continue
        root = min(members, key=lambda name: (_rank(members[name]), order.get(name, len(order))))
        yield Group(_plain(root), width, tuple(sorted(members, key=order.__getitem__)), root, _multiple(group))


def _rank(module: nn.Module) -> int:
    """Which layer may name a group: a dense convolution first, then a linear layer, then the rest."""
    if isinstance(module, nn.Linear):
        return 1
    return 0 if isinstance(module, nn.modules.conv._ConvNd) and module.groups == 1 else 2


def _multiple(group: Any) -> int:
    """What kept channels must be a multiple of so that grouped layers keep equal parts."""
    parts = [1]
    for dep, _ in group:
        module = dep.target.module
        if isinstance(module, nn.modules.conv._ConvNd) and module.groups != module.out_channels:
            parts.append(module.groups)
        if isinstance(module, nn.GroupNorm):
            parts.append(module.num_groups)
    return math.lcm(*parts)


def _plain(name: str) -> str:
    return re.sub(r"[^_a-zA-Z0-9]", "_", name)


def _unique(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Number the names that became equal when dots were replaced."""
    seen: dict[str, int] = {}
    unique = []
    for group in groups:
        seen[group.name] = seen.get(group.name, 0) + 1
        name = group.name if seen[group.name] == 1 else f"{group.name}_{seen[group.name]}"
        unique.append(Group(name, group.width, group.members, group.root, group.multiple))
    return tuple(unique)


def specs(groups: Sequence[Group], step: int) -> tuple[GroupSpec, ...]:
    """The groups on a channel grid of `step`, each on the least multiple of it that its grouped layers allow.

    Where no group is wider than one step the step is halved until one is, so that a narrow network can be searched too.
    """
    while step > 1 and all(len(levels(_spec(group, step))) < 2 for group in groups):
        step //= 2
    return tuple(_spec(group, step) for group in groups)


def _spec(group: Group, step: int) -> GroupSpec:
    return GroupSpec(group.name, group.width, math.lcm(step, group.multiple))
