"""Silence: the dense network with the removed channels' writers set to zero gives what the pruned network gives."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from prunefleet.agent.compress.cut import dense as own_rows
from prunefleet.agent.compress.cut import find
from prunefleet.agent.compress.group import Group
from prunefleet.agent.compress.proof.forced import Pass, observed
from prunefleet.agent.compress.proof.proposal import Gone, Masks, Proposal
from prunefleet.agent.compress.trace.trace_state import Site
from prunefleet.agent.compress.walk import tensors

TOLERANCE = 2e-4
"""The largest difference of the outputs over the largest output: rounding adds up over layers."""
STRICT = 2e-5
"""The same for a group that nothing else proves."""
TELLING = 10
"""Silence tells something where it changes the outputs by so many times the error."""


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


@contextmanager
def silent(network: nn.Module, groups: Sequence[Group], gone: Gone) -> Iterator[None]:
    """Inside, everything in the network that writes the removed channels writes zeros."""
    before: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        for group in groups:
            for slot in group.slots:
                rows = sorted(slot.removed(gone[group.name]))
                if slot.out and rows:
                    for tensor, whole in _silence(find(network, slot.layer), slot.dim, rows):
                        before.append((tensor, whole))
        yield
    finally:
        for tensor, whole in reversed(before):
            tensor.copy_(whole)


def _silence(
    layer: nn.Module | torch.Tensor, dim: int, rows: Sequence[int]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Set rows of a layer's parameters to zero; yields each parameter with what it was."""
    if isinstance(layer, torch.Tensor):
        if layer.is_floating_point():  # else it is an order, not values
            yield layer.data, layer.data.clone()
            layer.data.index_fill_(dim, torch.tensor(rows), 0)
        return
    for name in ("weight", "bias"):
        parameter = getattr(layer, name, None)
        if parameter is None:
            continue
        yield parameter.data, parameter.data.clone()
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
    with observed(), silent(dense, groups, gone), listener.on(dense):
        dense(inputs)
    return {group.name for group in groups} - listener.groups


def gap(expected: Sequence[torch.Tensor], got: Sequence[torch.Tensor]) -> float:
    """Return the largest difference of outputs, over the largest value of each; infinite where shapes differ."""
    worst = 0.0
    for one, other in zip(expected, got, strict=True):
        if one.shape != other.shape:
            return math.inf
        if one.numel():
            largest = float(one.double().abs().max()) or 1.0
            error = float((one.double() - other.double()).abs().max()) / largest
            worst = max(worst, error) if math.isfinite(error) else math.inf
    return worst


def errors(
    dense: nn.Module, pruned: nn.Module, groups: Sequence[Group], gone: Gone, inputs: torch.Tensor
) -> tuple[float, float]:
    """Return how far the pruned network is from the silenced dense one, and that from the dense one, as in `gap`.

    Where silencing changes nothing, agreement proves nothing.
    """
    with observed():
        with silent(dense, groups, gone):
            expected = tensors(dense(inputs))
        got, before = tensors(pruned(inputs)), tensors(dense(inputs))
    return gap(expected, got), gap(before, expected)
