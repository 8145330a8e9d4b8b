"""Layers whose channels are pruned together, and the removal of channels from all of them."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from prunefleet.agent.compress.cut import Slot, by_groups, cut, find, width
from prunefleet.agent.compress.trace.channel_sets import Count
from prunefleet.objective.profiles.space import GroupSpec, levels


@dataclass(frozen=True)
class Branch:
    """A residual branch that can be left out.

    `module` is the branch; or, where that also adds what it was given, `last` is the layer in it that ends the branch,
    and `passed` are the others.
    """

    module: str
    last: str = ""
    passed: tuple[str, ...] = ()


class Nothing(nn.Module):
    """The place of a branch that was left out: it gives zeros in the shape of its input."""

    def forward(self, given: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        """[n, ...] → zeros, [n, ...]."""
        return torch.zeros_like(given)


class Passed(nn.Module):
    """A layer of a branch that was left out: it gives what it is given."""

    def forward(self, given: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        """[n, ...] → the same."""
        return given


def leave_out(network: nn.Module, branch: Branch) -> nn.Module:
    """Return the network, changed, without the branch."""
    network.set_submodule(branch.last or branch.module, Nothing())
    for name in branch.passed:
        network.set_submodule(name, Passed())
    return network


@dataclass(frozen=True)
class Group:
    """Layers that keep the same channels.

    `name` is stable: the first dense convolution (else linear layer) in forward order, in `[_a-zA-Z0-9]`. `width` is
    the number of channels, `members` the layers whose outputs are pruned together, `root` one of them. Kept channels
    must be a multiple of `multiple`, which is 1 except beside grouped convolutions, group norms and splits. `slots` are
    the layers' channels, and root channels of one number in `tied` go together. `counts` are numbers in modules that
    shrink in proportion. Of a `rolled` one, the order in which its channels are read depends on which ones go. `proof`
    says how the group was proven: "silence" or "influence". With a `branch` the group may keep no channel: then that
    residual branch is left out, with all groups in it.
    """

    name: str
    width: int
    members: tuple[str, ...]
    root: str
    multiple: int = 1
    slots: tuple[Slot, ...] = field(default=(), repr=False, compare=False)
    tied: tuple[int, ...] = field(default=(), repr=False, compare=False)
    counts: tuple[Count, ...] = field(default=(), repr=False, compare=False)
    rolled: bool = False
    branch: Branch | None = field(default=None, repr=False, compare=False)
    proof: str = ""

    def bundles(self) -> list[int]:
        """Return the root channels that stand for the sets of those that go together, in order."""
        return sorted(set(self.tied))

    def all_of(self, bundles: Sequence[int]) -> set[int]:
        """Return the numbers of all root channels in these sets."""
        chosen = set(bundles)
        return {number for number, bundle in enumerate(self.tied) if bundle in chosen}


def remove(network: nn.Module, groups: Sequence[Group], roots: Mapping[str, set[int]]) -> None:
    """Cut root channels, by number and group name, from all layers they are in; changes `network`."""
    left = {group.branch: group for group in groups if group.branch and len(roots[group.name]) == group.width}
    groups = [group for group in groups if group.branch not in left]
    keep = kept_channels(network, groups, roots)
    slots = {(slot.layer, slot.out, slot.dim): slot for group in groups for slot in group.slots}
    by_group = {layer for layer, _, _ in slots if by_groups(find(network, layer))}
    for key, channels in keep.items():
        cut(network, slots[key], channels, key[0] in by_group)
    for group in groups:
        _shrink_counts(network, group, group.width - len(roots[group.name]))
    for branch in left:
        if branch is not None:
            leave_out(network, branch)


def kept_channels(
    network: nn.Module, groups: Sequence[Group], roots: Mapping[str, set[int]]
) -> dict[tuple[str, bool, int], list[int]]:
    """Return the channels that stay on each side of a layer that loses any, by layer, side and dimension."""
    gone: dict[tuple[str, bool, int], set[int]] = defaultdict(set)
    for group in groups:
        for slot in group.slots:
            gone[slot.layer, slot.out, slot.dim] |= slot.removed(roots[group.name])
    return {
        (layer, out, dim): [at for at in range(width(find(network, layer), out, dim)) if at not in lost]
        for (layer, out, dim), lost in gone.items()
        if lost
    }


def _shrink_counts(network: nn.Module, group: Group, kept: int) -> None:
    for count in group.counts:
        setattr(network.get_submodule(count.module), count.attribute, count.value * kept // group.width)


def plain(name: str) -> str:
    """Return a layer's name in `[_a-zA-Z0-9]`."""
    return re.sub(r"[^_a-zA-Z0-9]", "_", name)


def unique(groups: Sequence[Group]) -> tuple[Group, ...]:
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
    return GroupSpec(group.name, group.width, math.lcm(step, group.multiple), group.proof or None)
