"""The groups that a trace proposes, each with what its proof needs, and the layers that stay whole."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import torch
from torch import nn

from prunefleet.agent.compress.cut import width
from prunefleet.agent.compress.group import Group, plain
from prunefleet.agent.compress.proof.proposal import Proposal
from prunefleet.agent.compress.trace.channel_sets import PRUNABLE, ChannelSets, Reach
from prunefleet.agent.compress.trace.tracer import trace


class Proposals:
    """What can be made of a network's channels.

    Args:
        network: the network, in the mode in which it is looked at.
        inputs: what it is traced on, [n, ...].
        order: each module's place in the forward pass.
        refused: layers that are to stay whole, each with the reason.
    """

    def __init__(
        self, network: nn.Module, inputs: torch.Tensor, order: Mapping[str, int], refused: Mapping[str, str]
    ) -> None:
        self.state = trace(network, inputs)
        self._network, self.order, self._refused = network, order, refused
        self.layers = {name: module for name, module in network.named_modules() if isinstance(module, PRUNABLE)}
        self.channels = cache(lambda rank: ChannelSets(self.state, network, rank))

    def first(self) -> tuple[list[Proposal], dict[str, str]]:
        """Return the groups that the trace proposes, and the layers that stay whole with the reasons."""
        found, whole = list[Proposal](), dict[str, str]()
        covered: dict[str, set[int]] = defaultdict(set)
        for name in sorted(self.layers, key=lambda name: self.order.get(name, len(self.order))):
            reason = self._reason(name)
            if reason is not None:
                whole[name] = reason
                continue
            channels = [each for each in range(width(self.layers[name], out=True)) if each not in covered[name]]
            if not channels or not self.channels(0).writes(name):
                continue
            reach = self.channels(0).reach(name, channels)
            for slot in reach.slots:
                if slot.out:
                    covered[slot.layer].update(slot.channels)
            self._sort(name, channels, reach, found, whole)
        return found, whole

    def _sort(
        self, name: str, channels: Sequence[int], reach: Reach, found: list[Proposal], whole: dict[str, str]
    ) -> None:
        members = self._members(reach)
        refused = next((self._refused[each] for each in members if each in self._refused), None)
        reason = reach.hindrance or refused or uneven(reach.tied)
        if reason is None:
            found.append(self._proposal(name, channels, reach, 0))
            return
        again = None
        if not reach.hindrance and not refused:
            again = next((each for rank in range(1, reach.choices) if (each := self.at(name, channels, rank))), None)
        if again:
            found.append(again)
        else:
            whole |= dict.fromkeys(members, reason)

    def _reason(self, name: str) -> str | None:
        """Why a layer stays whole whatever its channels meet."""
        if not self.channels(0).used(name):
            return "the forward pass does not use it"
        if width(self.layers[name], out=True) == 1:
            return "it has one channel"
        return self.channels(0).whole(name)

    def at(self, name: str, channels: Sequence[int], rank: int) -> Proposal | None:
        """Return the group of these channels where another dimension gets shorter; None if none can."""
        reach = self.channels(rank).reach(name, channels)
        refused = any(each in self._refused for each in self._members(reach))
        if reach.hindrance or refused or uneven(reach.tied):
            return None
        return self._proposal(name, channels, reach, rank)

    def _members(self, reach: Reach) -> tuple[str, ...]:
        """The prunable layers whose outputs are among the slots, in forward order."""
        names = {slot.layer for slot in reach.slots if slot.out and slot.layer in self.layers}
        return tuple(sorted(names, key=lambda name: self.order.get(name, len(self.order))))

    def _proposal(self, name: str, channels: Sequence[int], reach: Reach, rank: int) -> Proposal:
        members, tied = self._members(reach), reach.tied
        full = {slot.layer for slot in reach.slots if slot.out and len(slot.channels) == len(tied)} & set(members)
        able = [each for each in members if each in full and width(self.layers[each], out=True) == len(tied)] or [name]
        root = min(able, key=lambda each: (_rank(self.layers[each]), self.order[each]))
        group = Group(
            plain(root), len(tied), members, root, Counter(tied)[tied[0]], reach.slots, tied, rolled=reach.rolled
        )
        sets: dict[int, list[int]] = defaultdict(list)
        for channel, number in zip(channels, tied, strict=True):
            sets[number].append(channel)
        atoms = self.channels(rank).members(name, sets)
        start = name, tuple(channels)
        return Proposal(group, atoms, reach.modules, reach.counts, reach.choices, start, reach.uneven)


def uneven(tied: Sequence[int]) -> str | None:
    """Return why root channels tied like this leave nothing to choose; None where they leave something."""
    sizes = set(Counter(tied).values())
    if len(sizes) > 1:
        return "its channels depend on each other in bundles of different size"
    return "all its channels depend on each other" if len(set(tied)) < 2 else None


def _rank(module: nn.Module) -> int:
    """Which layer may name a group: a dense convolution first, then a linear layer, then the rest."""
    if isinstance(module, nn.Linear):
        return 1
    return 0 if isinstance(module, nn.modules.conv._ConvNd) and module.groups == 1 else 2


def others(proposals: Proposals, proposal: Proposal) -> Iterator[Proposal]:
    """Yield what else a group could be that the network does not survive as it was proposed."""
    name, channels = proposal.start
    yield from proposal.counted()
    for rank in range(1, proposal.choices):
        other = proposals.at(name, channels, rank)
        if other is not None:
            yield other
            yield from other.counted()
