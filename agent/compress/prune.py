"""Kept channels → a smaller network: structured pruning of coupled groups with exact widths."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from agent.compress.groups import PRUNABLE, Group, forward_order, named_failures
from objective.errors import BadInput

IMPORTANCE: Mapping[str, Callable[[], Any]] = {
    "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
    "fpgm": lambda: tp.importance.FPGMImportance(p=2),
    "random": lambda: tp.importance.RandomImportance(),
}


@dataclass(frozen=True)
class Pruned:
    """A pruned network: channels kept by group, parameters, and multiply-accumulates of one inference on one input."""

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
) -> Pruned:
    """A pruned copy of `network` with exactly the `kept` channels in each group; a group not named stays whole.

    `example_input`: [1, ...]. Channels with the least group `importance` go; `seed` matters to "random" alone. Raises
    `BadInput` for an unknown group, a count outside 1..width or off the group's multiple, and, naming the layer, where
    pruning breaks the forward pass or changes the output's shape.
    """
    wanted = _checked(groups, kept)
    smaller = copy.deepcopy(network)
    was = [(module, module.training) for module in smaller.modules()]
    before = output_shapes(smaller.eval(), example_input)
    frozen = {name for name, parameter in smaller.named_parameters() if not parameter.requires_grad}
    if any(wanted[group.name] < group.width for group in groups):
        _remove(smaller.requires_grad_(True), example_input, groups, wanted, importance, seed)
        _verify(smaller, example_input, groups, wanted, before)
    for name, parameter in smaller.named_parameters():
        parameter.requires_grad_(name not in frozen)
    macs = count_macs(smaller, example_input)
    for module, training in was:
        module.training = training
    return Pruned(smaller, wanted, count_params(smaller), macs)


def shrink(
    network: nn.Module, example_input: torch.Tensor, groups: Sequence[Group], kept: Mapping[str, int]
) -> nn.Module:
    """A copy of `network` with the shapes that `prune` gives for `kept`: the one to load saved weights into."""
    return prune(network, example_input, groups, kept).network


def structure(network: nn.Module, groups: Sequence[Group]) -> dict[str, int]:
    """The channels that `network` has now in each group."""
    return {group.name: out_channels(network.get_submodule(group.root)) for group in groups}


def out_channels(layer: nn.Module) -> int:
    """Output channels of a convolution or linear layer."""
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]


def count_params(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, example_input: torch.Tensor) -> int:
    """Multiply-accumulates of one forward pass, counted as it runs, so that layers of a user's own count too."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(example_input)
    return int(counter.get_total_flops()) // 2


def output_shapes(network: nn.Module, example_input: torch.Tensor) -> list[tuple[int, ...]]:
    """Shapes of all tensors that the network returns; raises `BadInput` naming the layer if it does not run."""
    forward_order(network, example_input)
    with torch.no_grad():
        return [tuple(each.shape) for each in _tensors(network(example_input))]


def _tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for each in inner for tensor in _tensors(each)]


def _checked(groups: Sequence[Group], kept: Mapping[str, int]) -> dict[str, int]:
    by_name = {group.name: group for group in groups}
    for name, count in kept.items():
        if name not in by_name:
            raise BadInput(f"kept.{name}", count, f"name a group of the network: {', '.join(by_name)}")
        group = by_name[name]
        if not 1 <= count <= group.width or count % group.multiple:
            multiple = f" in multiples of {group.multiple}" if group.multiple > 1 else ""
            raise BadInput(f"kept.{name}", count, f"keep 1 to {group.width} channels{multiple}")
    return {group.name: int(kept.get(group.name, group.width)) for group in groups}


def _remove(
    network: nn.Module,
    example_input: torch.Tensor,
    groups: Sequence[Group],
    kept: Mapping[str, int],
    importance: str,
    seed: int,
) -> None:
    if importance not in IMPORTANCE:
        raise BadInput("importance", importance, f"choose one of {', '.join(IMPORTANCE)}")
    names = {module: name for name, module in network.named_modules()}
    # n_pruned = C - int(C * (1 - r)): half a channel of slack keeps float error from taking one channel too many.
    ratios = {
        network.get_submodule(group.root): 1 - (kept[group.name] + 0.5) / group.width
        for group in groups
        if kept[group.name] < group.width
    }
    with named_failures(names), torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        tp.pruner.BasePruner(
            network,
            (example_input,),
            importance=IMPORTANCE[importance](),
            pruning_ratio=0.0,  # the default halves every group that is not named
            pruning_ratio_dict=ratios,
            root_module_types=list(PRUNABLE),
            in_channel_groups={},  # the default dictionaries are shared by all pruners and keep every network alive
            out_channel_groups={},
            num_heads={},
            channel_groups={},
        ).step()


def _verify(
    network: nn.Module,
    example_input: torch.Tensor,
    groups: Sequence[Group],
    kept: Mapping[str, int],
    before: list[tuple[int, ...]],
) -> None:
    """Raise `BadInput` unless the network has the channels asked for, runs, and returns what it returned before."""
    for group in groups:
        for member in group.members:
            got = out_channels(network.get_submodule(member))
            if got != kept[group.name]:
                raise BadInput(
                    f"network.{member}", f"{got} channels", f"{kept[group.name]} were asked of group {group.name}"
                )
    after = output_shapes(network, example_input)
    if after != before:
        raise BadInput(
            "network", f"outputs {after}", f"pruning may not change {before}: list the output layers as ignored"
        )
