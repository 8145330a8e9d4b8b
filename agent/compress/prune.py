"""Kept channels → a smaller network: structured pruning of coupled groups with exact widths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import flop_registry

from prunefleet.agent.compress.arrange import pruned_copy_of
from prunefleet.agent.compress.cut import find, width
from prunefleet.agent.compress.fold import copied, folded
from prunefleet.agent.compress.groups import Group, as_traced, output_shapes
from prunefleet.agent.compress.importance import Backward, check_method, saliency_of, scores
from prunefleet.agent.compress.walk import Watcher
from prunefleet.objective.errors import BadInput


@dataclass(frozen=True)
class Pruned:
    """A pruned network, and how large it is.

    Args:
        network: the pruned copy, in the same mode (training or evaluation) as the network that it was made from.
        kept: the number of channels in every group by the group's name, also of groups that were not pruned.
        params: the number of its parameters.
        macs: multiply-accumulates of one forward pass on one input.
    """

    network: nn.Module
    kept: dict[str, int]
    params: int
    macs: int


def prune(
    network: nn.Module,
    example_input: torch.Tensor,
    groups: Sequence[Group],
    kept: Mapping[str, int],
    importance: str = "l2",
    seed: int = 0,
    ranking: str = "group",
    backward: Backward | None = None,
) -> Pruned:
    """A pruned copy of `network` with exactly the `kept` channels in each group; a group not named stays whole.

    `example_input`: [1, ...]; `groups` are the network's own. The channels with the least `importance`, ranked by
    filter, channel or group, go; 0 channels leave out the residual branch of a group that has one. `seed` and
    `backward` matter where the criterion is random or needs gradients. Raises `BadInput` for an unknown group, a count
    outside 1..width (0..width with a branch) or off the group's multiple, and, naming the layer, where pruning breaks
    the forward pass or changes the output's shape.
    """
    wanted = _checked(groups, kept)
    check_method(importance, ranking)
    network = folded(copied(network))
    smaller = copied(network)
    gone = _gone(network, groups, wanted, importance, seed, ranking, backward)
    pruned_copy_of(network, smaller, groups, gone, example_input)
    _verify_widths(network, smaller, groups, gone)
    _verify_outputs(network, smaller, example_input)
    return Pruned(smaller, wanted, count_params(smaller), count_macs(smaller, example_input))


def shrink(
    network: nn.Module, example_input: torch.Tensor, groups: Sequence[Group], kept: Mapping[str, int]
) -> nn.Module:
    """A copy of `network` with the shapes that `prune` gives for `kept`: the one to load saved weights into."""
    return prune(network, example_input, groups, kept).network


def count_params(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, example_input: torch.Tensor) -> int:
    """Multiply-accumulates of one forward pass, counted as it runs, so that layers of a user's own count too."""
    plain = copied(network).eval()
    counted = _Operations()
    with torch.no_grad(), counted:
        plain(example_input)
    return counted.flops // 2


class _Operations(Watcher):  # type: ignore[no-untyped-call]
    """Counts by torch's own formulae, like its FlopCounterMode, which tells them by module and imports the compiler."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def ran(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation and count it."""
        found = func(*args, **kwargs)
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += int(formula(*args, **kwargs, out_val=found))
        return found


def _checked(groups: Sequence[Group], kept: Mapping[str, int]) -> dict[str, int]:
    by_name = {group.name: group for group in groups}
    for name, count in kept.items():
        if name not in by_name:
            raise BadInput(f"kept.{name}", count, f"name a group of the network: {', '.join(by_name)}")
        group = by_name[name]
        least = 0 if group.branch else 1
        if not least <= count <= group.width or count % group.multiple:
            multiple = f" in multiples of {group.multiple}" if group.multiple > 1 else ""
            none = ", or 0 to leave its branch out" if group.branch else ""
            raise BadInput(f"kept.{name}", count, f"keep 1 to {group.width} channels{multiple}{none}")
    wanted = {group.name: int(kept.get(group.name, group.width)) for group in groups}
    left = {group.branch for group in groups if group.branch and not wanted[group.name]}
    return wanted | {group.name: 0 for group in groups if group.branch in left}


def _gone(
    network: nn.Module,
    groups: Sequence[Group],
    kept: Mapping[str, int],
    importance: str,
    seed: int,
    ranking: str,
    backward: Backward | None,
) -> dict[str, set[int]]:
    """By group, the numbers of the root channels to remove."""
    fewer = {group.name: group for group in groups if kept[group.name] < group.width}
    saliency = saliency_of(network, importance, backward) if fewer else None
    gone: dict[str, set[int]] = {group.name: set() for group in groups}
    for place, group in enumerate(groups):
        if group.name in fewer:
            found = scores(network, group, importance, ranking, 1000 * seed + place, saliency)
            gone[group.name] = _least(found, group, group.width - kept[group.name])
    return gone


def _least(importance: torch.Tensor, group: Group, count: int) -> set[int]:
    """Numbers of `count` root channels: those of least importance, each with all that are tied to it."""
    bundles = sorted(set(group.tied), key=lambda number: (float(importance[number]), number))
    gone = set(bundles[: count // group.multiple])
    return {number for number, bundle in enumerate(group.tied) if bundle in gone}


def _verify_widths(
    network: nn.Module, smaller: nn.Module, groups: Sequence[Group], gone: Mapping[str, set[int]]
) -> None:
    """Raise `BadInput` unless each layer lost exactly the channels it should."""
    wanted: dict[tuple[str, bool, int], int] = {}
    for group in groups:
        for slot in group.slots:
            key = slot.layer, slot.out, slot.dim
            lost = len(slot.removed(gone[group.name]))
            wanted[key] = wanted.get(key, width(find(network, slot.layer), *key[1:])) - lost
    left = tuple(f"{group.branch.module}." for group in groups if group.branch and len(gone[group.name]) == group.width)
    for (layer, out, dim), count in wanted.items():
        if layer.startswith(left):
            continue
        got = width(find(smaller, layer), out, dim)
        if got != count:
            raise BadInput(f"network.{layer}", f"{got} channels", f"{count} were asked of it: report this as an error")


def _verify_outputs(network: nn.Module, smaller: nn.Module, example_input: torch.Tensor) -> None:
    """Raise `BadInput` unless the smaller network runs, and returns what the network does; on copies of both."""
    before, after = (
        output_shapes(as_traced(copied(each), example_input), example_input) for each in (network, smaller)
    )
    if after != before:
        remedy = f"pruning may not change {before}: list the output layers as ignored"
        raise BadInput("network", f"outputs {after}", remedy)
