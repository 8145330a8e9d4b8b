"""Coupled layer groups of a network: the dimensions of the search.

All layers that write to one stream (a residual stage, say) lose the same channels, so they share one pruning ratio.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from prunefleet.agent.compress.fold import copied, folded
from prunefleet.agent.compress.group import Group, remove, specs
from prunefleet.agent.compress.proof.branches import with_branches
from prunefleet.agent.compress.proof.proposals import Proposals
from prunefleet.agent.compress.proof.prove import check_steady, prove, two_inputs
from prunefleet.agent.compress.trace.channel_sets import PRUNABLE
from prunefleet.agent.compress.walk import output_shapes, run_once
from prunefleet.objective.errors import BadInput

__all__ = ["Group", "Survey", "as_traced", "find_groups", "output_shapes", "remove", "specs", "survey"]


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

    `example_input`: [1, ...]. Each group is proven by experiments on the network; one that cannot be is left whole.
    Leaves the network as it was. Raises `BadInput`, naming the layer, where the network does not run, cannot be traced,
    or has nothing to prune.
    """
    dense, example_input = _on_this_processor(folded(copied(network)).requires_grad_(False), example_input)
    dense = as_traced(dense, example_input)
    order, _ = run_once(dense, example_input)
    inputs = two_inputs(dense, example_input)
    check_steady(dense, inputs)
    found = Proposals(dense, inputs, order, _inside(dense, ignored))
    proven, whole = prove(dense, inputs, found)
    if not proven:
        layers = ", ".join(sorted(whole, key=lambda name: order.get(name, 0))) or type(network).__name__
        remedy = "give a network with a convolution before its last layer: nothing to prune here"
        raise BadInput("network", layers, f"{remedy} ({'; '.join(dict.fromkeys(whole.values()))})" if whole else remedy)
    return Survey(with_branches(dense, inputs, proven), whole)


def _on_this_processor(network: nn.Module, example_input: torch.Tensor) -> tuple[nn.Module, torch.Tensor]:
    """The network, changed, and its input where experiments run: in memory, in single precision at least."""
    halves = [each for each in network.parameters() if each.dtype in (torch.float16, torch.bfloat16)]
    if halves:
        return network.float().cpu(), example_input.float().cpu()
    return network.cpu(), example_input.cpu()


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


def _inside(network: nn.Module, ignored: Sequence[str]) -> dict[str, str]:
    """The prunable layers in the modules named, each with the reason; raises `BadInput` for a name it has not."""
    known = dict(network.named_modules())
    unknown = [name for name in ignored if name not in known]
    if unknown:
        raise BadInput("ignored", unknown[0], f"name a module of the network, such as {list(known)[-1]}")
    inside = {name: top for top in ignored for name in known if name == top or name.startswith(top + ".")}
    return {name: f"{top} is to be ignored" for name, top in inside.items() if isinstance(known[name], PRUNABLE)}
