"""Silence: the dense network with the removed channels' writers set to zero gives what the pruned network gives."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from prunefleet.agent.compress.cut import dense as own_rows
from prunefleet.agent.compress.cut import find
from prunefleet.agent.compress.fold import copied
from prunefleet.agent.compress.group import Group
from prunefleet.agent.compress.proof.forced import Pass, close, observed
from prunefleet.agent.compress.proof.proposal import Gone, Masks, Proposal
from prunefleet.agent.compress.trace.trace_state import Site

TOLERANCE = 2e-4
"""The largest difference of the outputs over the largest output: rounding adds up over layers."""
STRICT = 2e-5
"""The same for a group that nothing else proves."""


class _Audible(Pass):  # type: ignore[no-untyped-call]
    """Finds groups whose removed channels are not zero where they are read."""

    def __init__(self, sites: list[Site], masks: Masks) -> None:
        super().__init__(sites, masks)
        self.groups: set[str] = set()

    def take(self, site: Site, at: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Look at what reaches a layer."""
        first = 1 if "add" in func.overloadpacket.__name__ else 0
        for place, atoms in enumerate(site.given, first):
            losing = self.masks.losing(atoms)
            if site.statistic:
                self.groups |= losing
            elif losing - self.groups and site.forced:
                there = args[place][~self.masks.kept(atoms, args[place].shape)]
                self.groups |= losing if bool((there != 0).any()) else set()
        return func(*args, **kwargs)

    def entered(self, site: Site, inputs: tuple[Any, ...]) -> Any:
        """Look at what reaches a layer that is not looked into."""
        there = inputs[0][~self.masks.kept(site.given[0], inputs[0].shape)]
        self.groups |= self.masks.losing(site.given[0]) if bool((there != 0).any()) else set()
        return None


def silenced(network: nn.Module, groups: Sequence[Group], gone: Gone) -> nn.Module:
    """Return a copy of the network in which everything that writes the removed channels writes zeros."""
    quiet = copied(network)
    with torch.no_grad():
        for group in groups:
            for slot in group.slots:
                rows = sorted(slot.removed(gone[group.name]))
                if slot.out and rows:
                    _silence(find(quiet, slot.layer), slot.dim, rows)
    return quiet


def _silence(layer: nn.Module | torch.Tensor, dim: int, rows: Sequence[int]) -> None:
    if isinstance(layer, torch.Tensor) and not layer.is_floating_point():
        return  # an order, not values
    if isinstance(layer, torch.Tensor):
        layer.data.index_fill_(dim, torch.tensor(rows), 0)
        return
    for name in ("weight", "bias"):
        parameter = getattr(layer, name, None)
        if parameter is None:
            continue
        if isinstance(layer, nn.modules.conv._ConvNd) and layer.transposed and name == "weight" and own_rows(layer):
            parts = parameter.data.reshape(layer.groups, -1, *parameter.shape[1:])
            for row in rows:
                parts[row // parameter.shape[1], :, row % parameter.shape[1]] = 0
        else:
            parameter.data.index_fill_(min(dim, parameter.ndim - 1), torch.tensor(rows), 0)


def exact(
    dense: nn.Module, inputs: torch.Tensor, sites: list[Site], total: int, proposals: Sequence[Proposal], gone: Gone
) -> set[str]:
    """Return the names of the groups for which silence is exact: zeros stay zeros up to every layer that reads them."""
    groups = [each.group for each in proposals]
    listener = _Audible(sites, Masks(total, proposals, gone))
    quiet = silenced(dense, groups, gone)
    with observed(), listener.on(quiet):
        quiet(inputs)
    return {group.name for group in groups} - listener.groups


def agrees(
    dense: nn.Module,
    pruned: nn.Module,
    groups: Sequence[Group],
    gone: Gone,
    inputs: torch.Tensor,
    tolerance: float = TOLERANCE,
) -> bool:
    """Return whether the silenced dense network and the pruned one give the same outputs."""
    with observed():
        expected = tree_leaves(silenced(dense, groups, gone)(inputs))
        got = tree_leaves(pruned(inputs))
    pairs = [(a, b) for a, b in zip(expected, got, strict=True) if isinstance(a, torch.Tensor)]
    return all(isinstance(b, torch.Tensor) and close(a, b, tolerance) for a, b in pairs)


def matters(dense: nn.Module, groups: Sequence[Group], gone: Gone, inputs: torch.Tensor) -> bool:
    """Return whether silencing these channels changes the outputs: where it does not, silence proves nothing."""
    with observed():
        expected = tree_leaves(silenced(dense, groups, gone)(inputs))
        before = tree_leaves(dense(inputs))
    pairs = [(a, b) for a, b in zip(before, expected, strict=True) if isinstance(a, torch.Tensor)]
    return not all(close(a, b, 10 * STRICT) for a, b in pairs)
