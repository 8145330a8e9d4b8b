"""Coupled layer groups of a network: the dimensions of the search.

All layers that write to one stream (a residual stage, say) lose the same channels, so they share one pruning ratio.
"""

import copy
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from prunefleet.agent.compress.cut import Slot, cut, find, width
from prunefleet.agent.compress.graph import PRUNABLE, Graph, run_once
from prunefleet.objective.errors import BadInput
from prunefleet.objective.profiles.space import GroupSpec, levels


@dataclass(frozen=True)
class Group:
    """Layers that keep the same channels.

    `name` is stable: the first dense convolution (else linear layer) in forward order, in `[_a-zA-Z0-9]`. `width` is
    the number of channels, `members` the layers whose outputs are pruned together, `root` one of them. Kept channels
    must be a multiple of `multiple`, which is 1 except beside grouped convolutions, group norms and splits. `slots` are
    the layers' channels, and root channels of one number in `tied` go together.
    """

    name: str
    width: int
    members: tuple[str, ...]
    root: str
    multiple: int = 1
    slots: tuple[Slot, ...] = field(default=(), repr=False, compare=False)
    tied: tuple[int, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Survey:
    """What of a network can be pruned: its groups in forward order, and the reason why each other layer stays whole."""

    groups: tuple[Group, ...]
    whole: Mapping[str, str]


def find_groups(network: nn.Module, example_input: torch.Tensor, ignored: Sequence[str] = ()) -> tuple[Group, ...]:
    """The groups of `network` in forward order; see `survey`, which also tells what is left out, and why."""
    return survey(network, example_input, ignored).groups


def survey(network: nn.Module, example_input: torch.Tensor, ignored: Sequence[str] = ()) -> Survey:
    """Find the groups of `network`, without the layers that make its output and those `ignored` by name.

    `example_input`: [1, ...]. Each group is tried: one that the network does not survive is left whole. Leaves the
    network as it was. Raises `BadInput`, naming the layer, where the network does not run, cannot be traced, or has
    nothing to prune.
    """
    traced = as_traced(copy.deepcopy(network).requires_grad_(True), example_input)
    graph = Graph(traced, example_input)
    refused = _inside(traced, ignored)
    found, whole = [], {}
    for name, group, reason in _candidates(graph, refused):
        if reason:
            whole[name] = reason
        elif group:
            found.append(group)
    groups = _unique(sorted(found, key=lambda group: graph.order[group.root]))
    usable, broken = _tried(traced, example_input, groups)
    whole |= {member: reason for group, reason in broken for member in group.members}
    if not usable:
        layers = ", ".join(sorted(whole, key=lambda name: graph.order.get(name, 0))) or type(network).__name__
        remedy = "give a network with a convolution before its last layer: nothing to prune here"
        raise BadInput("network", layers, f"{remedy} ({'; '.join(dict.fromkeys(whole.values()))})" if whole else remedy)
    return Survey(usable, whole)


def as_traced(network: nn.Module, example_input: torch.Tensor) -> nn.Module:
    """The network, changed, in evaluation mode; but if training adds outputs (auxiliary heads), so that these run too.

    Then only modules made of others are in training mode: norms and dropout behave as in evaluation.
    """
    usual = output_shapes(network.eval(), example_input)
    for module in network.modules():
        made_of_others = any(True for _ in module.children()) and not any(True for _ in module.buffers(recurse=False))
        module.training = made_of_others and not isinstance(module, nn.modules.batchnorm._NormBase)
    try:
        if len(output_shapes(network, example_input)) > len(usual):
            return network
    except BadInput:
        pass  # it needs more than images to train
    return network.eval()


def output_shapes(network: nn.Module, example_input: torch.Tensor) -> list[tuple[int, ...]]:
    """Shapes of all tensors that the network returns; raises `BadInput` naming the layer if it does not run."""
    return [tuple(each.shape) for each in run_once(network, example_input)[1]]


def _candidates(graph: Graph, refused: Mapping[str, str]) -> Iterator[tuple[str, Group | None, str | None]]:
    """Every prunable layer with the group that it starts, or the reason why it stays whole; in forward order."""
    covered: dict[str, set[int]] = defaultdict(set)
    for name in sorted(graph.layers, key=lambda name: graph.order.get(name, len(graph.order))):
        if not graph.traced(name):
            yield name, None, "the forward pass does not use it"
            continue
        count = width(graph.layers[name], out=True)
        channels = [each for each in range(count) if each not in covered[name]]
        if count == 1:
            yield name, None, "it has one channel"
        if count == 1 or not channels:
            continue
        reach = graph.reach(name, channels)
        members = _members(graph, reach.slots)
        for slot in reach.slots:
            if slot.out:
                covered[slot.layer].update(slot.channels)
        reason = reach.hindrance or next((refused[each] for each in members if each in refused), None)
        reason = reason or _uneven(reach.tied)
        if reason:
            yield from ((member, None, reason) for member in members)
        else:
            yield name, _group(graph, name, members, reach.slots, reach.tied), None


def _members(graph: Graph, slots: Sequence[Slot]) -> tuple[str, ...]:
    """The prunable layers whose outputs are among the slots, in forward order."""
    names = {slot.layer for slot in slots if slot.out and slot.layer in graph.layers}
    return tuple(sorted(names, key=lambda name: graph.order.get(name, len(graph.order))))


def _uneven(tied: Sequence[int]) -> str | None:
    """Why root channels tied like this leave nothing to choose."""
    sizes = set(Counter(tied).values())
    if len(sizes) > 1:
        return "its channels depend on each other in bundles of different size"
    return "all its channels depend on each other" if len(set(tied)) < 2 else None


def _group(graph: Graph, name: str, members: Sequence[str], slots: tuple[Slot, ...], tied: tuple[int, ...]) -> Group:
    full = {slot.layer for slot in slots if slot.out and len(slot.channels) == len(tied)} & set(members)
    able = [each for each in members if each in full and width(graph.layers[each], out=True) == len(tied)] or [name]
    root = min(able, key=lambda each: (_rank(graph.layers[each]), graph.order[each]))
    return Group(_plain(root), len(tied), tuple(members), root, Counter(tied)[tied[0]], slots, tied)


def _rank(module: nn.Module) -> int:
    """Which layer may name a group: a dense convolution first, then a linear layer, then the rest."""
    if isinstance(module, nn.Linear):
        return 1
    return 0 if isinstance(module, nn.modules.conv._ConvNd) and module.groups == 1 else 2


def _inside(network: nn.Module, ignored: Sequence[str]) -> dict[str, str]:
    """The prunable layers in the modules named, each with the reason; raises `BadInput` for a name it has not."""
    known = dict(network.named_modules())
    unknown = [name for name in ignored if name not in known]
    if unknown:
        raise BadInput("ignored", unknown[0], f"name a module of the network, such as {list(known)[-1]}")
    inside = {name: top for top in ignored for name in known if name == top or name.startswith(top + ".")}
    return {name: f"{top} is to be ignored" for name, top in inside.items() if isinstance(known[name], PRUNABLE)}


def _tried(
    network: nn.Module, example_input: torch.Tensor, groups: Sequence[Group]
) -> tuple[tuple[Group, ...], list[tuple[Group, str]]]:
    """The groups that the network survives when each loses its first channels, and the others with the reason.

    All at once first: only where that fails is each tried alone.
    """
    before = output_shapes(network, example_input)
    if _complaint(network, example_input, groups, before) is None:
        return tuple(groups), []
    complaints = [(group, _complaint(network, example_input, [group], before)) for group in groups]
    usable = tuple(group for group, complaint in complaints if complaint is None)
    together = _complaint(network, example_input, usable, before)
    if together:
        raise BadInput("network", ", ".join(group.name for group in usable), f"pruned together, {together}")
    return usable, [(group, complaint) for group, complaint in complaints if complaint]


def _complaint(
    network: nn.Module, example_input: torch.Tensor, groups: Sequence[Group], before: list[tuple[int, ...]]
) -> str | None:
    """What breaks when the first channels of these groups are removed, with those tied to them."""
    smaller = copy.deepcopy(network)
    remove(smaller, groups, {group.name: {i for i, tie in enumerate(group.tied) if tie == 0} for group in groups})
    try:
        after = output_shapes(smaller, example_input)
    except BadInput as error:
        return f"pruning it breaks {error.got}: {error.remedy.partition(': ')[2]}"
    return None if after == before else f"pruning it changes the outputs {before} to {after}"


def remove(network: nn.Module, groups: Sequence[Group], roots: Mapping[str, set[int]]) -> None:
    """Cut root channels, by number and group name, from all layers they are in; changes `network`."""
    gone: dict[tuple[str, bool], set[int]] = defaultdict(set)
    slots: dict[tuple[str, bool], Slot] = {}
    for group in groups:
        for slot in group.slots:
            slots[slot.layer, slot.out] = slot
            gone[slot.layer, slot.out] |= slot.removed(roots[group.name])
    for key, slot in slots.items():
        if gone[key]:
            whole = width(find(network, slot.layer), slot.out, slot.dim)
            cut(network, slot, [channel for channel in range(whole) if channel not in gone[key]])


def _plain(name: str) -> str:
    return re.sub(r"[^_a-zA-Z0-9]", "_", name)


def _unique(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Number the names that became equal when dots were replaced."""
    seen: dict[str, int] = {}
    unique = []
    for group in groups:
        seen[group.name] = seen.get(group.name, 0) + 1
        name = group.name if seen[group.name] == 1 else f"{group.name}_{seen[group.name]}"
        unique.append(replace(group, name=name))
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
