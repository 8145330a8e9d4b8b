"""Residual branches that can be left out whole: adding what they give is then adding nothing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from prunefleet.agent.compress.group import Branch, Group, leave_out
from prunefleet.agent.compress.proof.forced import observed
from prunefleet.agent.compress.proof.silence import TELLING, TOLERANCE, gap, silent
from prunefleet.agent.compress.walk import tensors


def with_branches(network: nn.Module, inputs: torch.Tensor, groups: Sequence[Group]) -> tuple[Group, ...]:
    """Return the groups, each inside a residual branch with that branch, where silence proves that it can be left out.

    A branch is proven when the network without it gives what the network gives whose branch ends in silence.
    """
    found: dict[str, Branch] = {}
    ended: set[str] = set()
    for inner, stream, last, branch in _proposed(network, groups):
        if last not in ended and _proven(network, inputs, stream, last, branch):
            ended.add(last)
            found |= dict.fromkeys([group.name for group in inner], branch)
    return tuple(replace(group, branch=found.get(group.name)) for group in groups)


def _proposed(network: nn.Module, groups: Sequence[Group]) -> Iterator[tuple[list[Group], Group, str, Branch]]:
    """Branches by the modules that may be one, or hold one, the innermost first.

    A module is looked at if one layer in it writes to a stream that layers elsewhere write to as well, and if it holds
    other groups whole.
    """
    streams = [group for group in groups if len(group.members) > 1]
    names = [name for name, module in network.named_modules() if name and any(True for _ in module.children())]
    for name in sorted(names, key=lambda name: -name.count(".")):
        inside = name + "."
        inner = [group for group in groups if all(member.startswith(inside) for member in group.members)]
        ends = [(group, member) for group in streams for member in group.members if member.startswith(inside)]
        ends = [(group, member) for group, member in ends if group not in inner]
        if not inner or len(ends) != 1:
            continue
        stream, last = ends[0]
        yield inner, stream, last, Branch(name)
        layers = {slot.layer for group in (*inner, stream) for slot in group.slots if slot.layer.startswith(inside)}
        passed = sorted(layer for layer in layers - {last} if isinstance(_module(network, layer), nn.Module))
        yield inner, stream, last, Branch(name, last, tuple(passed))


def _module(network: nn.Module, name: str) -> object:
    found: object = network
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _proven(network: nn.Module, inputs: torch.Tensor, stream: Group, last: str, branch: Branch) -> bool:
    """Return whether leaving the branch out is the same as silencing its end, and makes a difference."""
    inside = branch.module + "."
    slots = tuple(slot for slot in stream.slots if slot.out and (slot.layer == last or slot.layer.startswith(inside)))
    ending = replace(stream, slots=slots)
    everything = {stream.name: set(range(stream.width))}
    try:
        with observed():
            before = tensors(network(inputs))
            with silent(network, [ending], everything):
                expected = tensors(network(inputs))
            with _without(network, branch):
                got = tensors(network(inputs))
    except Exception:  # the network's own code, which wants something else of the branch than a tensor
        return False
    error = gap(expected, got)
    return error < TOLERANCE and gap(before, expected) > TELLING * error


@contextmanager
def _without(network: nn.Module, branch: Branch) -> Iterator[None]:
    """Inside, the network is without the branch."""
    names = [branch.last or branch.module, *branch.passed]
    modules = [network.get_submodule(name) for name in names]
    leave_out(network, branch)
    try:
        yield
    finally:
        for name, module in zip(names, modules, strict=True):
            network.set_submodule(name, module)
