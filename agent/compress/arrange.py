"""Readers of channels that arrive in another order after pruning, as behind a roll by a fixed number."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from prunefleet.agent.compress.cut import Slot, cut, find, width
from prunefleet.agent.compress.group import Group, kept_channels, remove
from prunefleet.agent.compress.trace.trace_state import Side, TraceState
from prunefleet.agent.compress.trace.tracer import trace

Root = tuple[str, int]
"""A group's name, and the number of one of its root channels."""


def pruned_copy_of(
    network: nn.Module, smaller: nn.Module, groups: Sequence[Group], gone: Mapping[str, set[int]], inputs: torch.Tensor
) -> nn.Module:
    """Cut root channels, by number and group name, from `smaller`, a copy of `network`, and return it.

    Where channels are rolled, what reads them is put into the order in which they arrive. `inputs`: [n, ...].
    """
    remove(smaller, groups, gone)
    rolled = [group for group in groups if group.rolled and gone[group.name]]
    if rolled:
        _arrange(network, smaller, groups, rolled, gone, inputs)
    return smaller


def _arrange(
    network: nn.Module,
    smaller: nn.Module,
    groups: Sequence[Group],
    rolled: Sequence[Group],
    gone: Mapping[str, set[int]],
    inputs: torch.Tensor,
) -> None:
    state = trace(smaller, inputs)
    kept = kept_channels(network, groups, gone)
    arriving = _roots(state, groups, kept)
    for group in rolled:
        for slot in group.slots:
            side = Side(slot.layer, slot.out, slot.dim)
            if side in state.met and not (slot.out and slot.layer in state.written):
                now = kept.get((slot.layer, slot.out, slot.dim))
                columns = now if now is not None else list(range(width(find(network, slot.layer), slot.out, slot.dim)))
                order = _order(
                    group, slot, columns, [arriving.get(state.atoms.top(a)) for a in state.met[side].tolist()]
                )
                if order != columns:
                    cut(smaller, slot, [columns.index(column) for column in order])


def _roots(
    state: TraceState, groups: Sequence[Group], kept: Mapping[tuple[str, bool, int], list[int]]
) -> dict[int, Root]:
    """By class of the pruned network's atoms: which root channel of the dense one it is."""
    found: dict[int, Root] = {}
    for group in groups:
        for slot in group.slots:
            if slot.out and slot.layer in state.written:
                number = dict(zip(slot.channels, slot.roots, strict=True))
                channels = kept.get((slot.layer, True, slot.dim), list(range(len(state.written[slot.layer]))))
                for atom, channel in zip(state.written[slot.layer].tolist(), channels, strict=True):
                    if channel in number:
                        found[state.atoms.top(atom)] = group.name, number[channel]
    return found


def _order(group: Group, slot: Slot, columns: Sequence[int], arriving: Sequence[Root | None]) -> list[int]:
    """The dense channels of a slot in the order in which the group's channels arrive; the others stay in theirs."""
    number = dict(zip(slot.channels, slot.roots, strict=True))
    mine: dict[int, list[int]] = defaultdict(list)
    for column in columns:
        if column in number:
            mine[number[column]].append(column)
    rest = iter([column for column in columns if column not in number])
    order = []
    for root in arriving:
        own = root is not None and root[0] == group.name and mine[root[1]]
        order.append(mine[root[1]].pop(0) if own and root is not None else next(rest, -1))
    return order if sorted(order) == sorted(columns) else list(columns)
