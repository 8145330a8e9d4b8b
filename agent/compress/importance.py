"""How much each channel of a group matters.

A removed channel takes a filter of each layer that writes it (its producers) with it, and a slice of each layer that
reads it (its consumers). `filter` ranks by the first, `channel` by the second, `group` by both and the norms between.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from prunefleet.agent.compress.cut import Slot, find, rows
from prunefleet.agent.compress.fold import copied
from prunefleet.agent.compress.group import Group
from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import IMPORTANCES, RANKINGS

Backward = Callable[[nn.Module], object]
"""Runs a few training batches forward and backward through the network that it is given, a copy, and may change it."""
Saliency = Mapping[str, torch.Tensor]
"""By parameter: |weight × gradient|, summed over batches, in the parameter's shape."""

DENSE = (nn.modules.conv._ConvNd, nn.Linear)
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def l1(weights: torch.Tensor) -> torch.Tensor:
    """Sum of absolute weights of each row (Li et al., ICLR 2017): [n, m] → [n]."""
    return weights.abs().sum(1)


def l2(weights: torch.Tensor) -> torch.Tensor:
    """Sum of squared weights of each row, as DepGraph adds them over a group (Fang et al., CVPR 2023): [n, m] → [n]."""
    return weights.square().sum(1)


def fpgm(weights: torch.Tensor) -> torch.Tensor:
    """Distance of each row to all others: the one nearest to the rest can be replaced (He et al., CVPR 2019)."""
    return torch.cdist(weights, weights).sum(1)


@dataclass(frozen=True)
class Criterion:
    """A rule by which a channel's importance is found.

    `of_rows`: weights [n, m] → importance of each row [n]; None: channels are drawn at random, by the seed.
    `filters` and `norms`: whether it looks at convolutions and linear layers, and at norms. `ranked`: whether the
    ranking chooses among these layers; norms count in the ranking `group` alone. `gradients`: whether weights are
    multiplied by their gradients, so that training batches are needed.
    """

    of_rows: Callable[[torch.Tensor], torch.Tensor] | None
    filters: bool = True
    norms: bool = True
    ranked: bool = True
    gradients: bool = False


CRITERIA: Mapping[str, Criterion] = {
    "l2": Criterion(l2),
    "l1": Criterion(l1),
    "fpgm": Criterion(fpgm, norms=False),
    "bn_scale": Criterion(l1, filters=False, ranked=False),  # Liu et al., ICCV 2017
    "taylor": Criterion(l1, gradients=True),  # Molchanov et al., CVPR 2019
    "random": Criterion(None, filters=False, norms=False, ranked=False),
}
"""All criteria by name. A sweep file is checked without torch, by `prunefleet.objective.trial.IMPORTANCES`."""


def check_method(importance: str, ranking: str) -> None:
    """Raise `BadInput` for a criterion or a ranking that is not there."""
    checks.one_of("importance", importance, IMPORTANCES)
    checks.one_of("ranking", ranking, RANKINGS)


def scores(
    network: nn.Module,
    group: Group,
    importance: str,
    ranking: str = "group",
    seed: int = 0,
    saliency: Saliency | None = None,
) -> torch.Tensor:
    """Return the importance of each of the group's root channels, float [width]; channels that go together share one.

    `importance` names the criterion, which says whether `seed`, `saliency` (of `saliency_of`) and `ranking` matter.
    Raises `BadInput` where the group has no layer that the criterion looks at.
    """
    criterion = CRITERIA[importance]
    if criterion.of_rows is None:
        random = torch.Generator().manual_seed(seed)
        return _together(torch.rand(group.width, generator=random), group.tied)
    total, looked_at = torch.zeros(group.width), 0
    for slot in group.slots:
        layer = find(network, slot.layer)
        if isinstance(layer, nn.Module) and _counts(layer, slot, criterion, ranking):
            values = (saliency or {}).get(f"{slot.layer}.weight", layer.get_parameter("weight").detach())
            roots, weights = _by_root(rows(layer, values.float().cpu(), slot), slot)
            total.index_add_(0, roots, criterion.of_rows(weights))
            looked_at += 1
    if not looked_at:
        what = "layer" if criterion.filters else "norm"
        raise BadInput("importance", importance, f"choose l2: the group {group.name} has no {what} to rank it by")
    return _together(total, group.tied)


def _counts(layer: nn.Module, slot: Slot, criterion: Criterion, ranking: str) -> bool:
    """Whether the criterion looks at the layer on that side."""
    if isinstance(layer, NORMS):
        by_norms = criterion.norms and (ranking == "group" or not criterion.ranked)
        return by_norms and layer.weight is not None
    if not isinstance(layer, DENSE) or not criterion.filters:
        return False
    return ranking == "group" or slot.out == (ranking == "filter")


def _by_root(weights: torch.Tensor, slot: Slot) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of a slot's channels → the roots' numbers, each once where it can be, and the rows of each: [n], [n, m].

    A layer behind a flattening has many channels per root: side by side they are one row, and memory stays small.
    """
    order = sorted(range(len(slot.roots)), key=lambda place: slot.roots[place])
    roots = torch.tensor(slot.roots)[order]
    each, counts = torch.unique_consecutive(roots, return_counts=True)
    if len(counts.unique()) > 1:
        return roots, weights[order]
    return each, weights[order].reshape(len(each), -1)


def _together(values: torch.Tensor, tied: Sequence[int]) -> torch.Tensor:
    """The sum over channels that go together, for each of them."""
    classes = torch.tensor(tied)
    return torch.zeros_like(values).index_add_(0, classes, values)[classes]


def saliency_of(network: nn.Module, importance: str, backward: Backward | None) -> Saliency | None:
    """Return |weight × gradient| of every parameter, added up over the batches that `backward` trains a copy with.

    Batch by batch, for the mean gradient of a trained network is nearly nothing. None where the criterion `importance`
    needs no gradients. Raises `BadInput` where it does, and `backward` is None or gives none.
    """
    if not CRITERIA[importance].gradients:
        return None
    if backward is None:
        raise BadInput("importance", importance, "give prune the argument backward: it needs gradients")
    trained = copied(network).requires_grad_(True)
    total = {name: torch.zeros_like(parameter) for name, parameter in trained.named_parameters()}
    seen: list[str] = []

    def note(name: str, parameter: torch.Tensor, gradient: torch.Tensor) -> None:
        total[name] += (parameter.detach() * gradient).abs()
        seen.append(name)

    for name, parameter in trained.named_parameters():
        parameter.register_hook(partial(note, name, parameter))  # type: ignore[no-untyped-call]
    backward(trained)
    if not seen:
        raise BadInput("importance", importance, "choose another: the task's training gave no gradients")
    return total
