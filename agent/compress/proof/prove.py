"""Which groups of a network are what the trace says: decided by experiments, all groups at once, then one by one."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import torch
from torch import nn

from prunefleet.agent.compress.arrange import pruned_copy_of
from prunefleet.agent.compress.cut import width
from prunefleet.agent.compress.fold import copied
from prunefleet.agent.compress.group import Group, plain, remove, unique
from prunefleet.agent.compress.proof.depgraph_groups import DepGraphGroups
from prunefleet.agent.compress.proof.forced import Disagreement, close, influence
from prunefleet.agent.compress.proof.proposal import Gone, Masks, Proposal, patterns
from prunefleet.agent.compress.proof.proposals import Proposals, others, uneven
from prunefleet.agent.compress.proof.silence import STRICT, TELLING, TOLERANCE, errors, exact
from prunefleet.agent.compress.trace.tracer import NO_RULE
from prunefleet.agent.compress.walk import tensors
from prunefleet.objective.errors import BadInput

SILENCE, INFLUENCE = "silence", "influence"
ROUNDS = range(4)
HALF, FIRST = 3, 0
"""Rounds in which groups lose a random half, and their first third."""


def two_inputs(network: nn.Module, example_input: torch.Tensor) -> torch.Tensor:
    """Return the example and one drawn like it, [2, ...], or the example alone where the network takes no more."""
    noise = torch.randn(example_input.shape, generator=torch.Generator().manual_seed(0)).to(example_input)
    spread = example_input.std() if example_input.numel() > 1 else torch.tensor(1.0)
    drawn = example_input.mean() + (spread if bool(spread > 0) else 1.0) * noise
    both = torch.cat([example_input, drawn])
    try:
        with torch.no_grad():
            network(both)
    except Exception:  # whatever a network's own code raises: it takes one input at a time
        return drawn
    return both


def prove(network: nn.Module, inputs: torch.Tensor, proposals: Proposals) -> tuple[tuple[Group, ...], dict[str, str]]:
    """Return the groups that are proven, in forward order, and each layer that stays whole with the reason."""
    return _Proof(network, inputs, proposals).decide()


class _Proof:
    """The experiments on one network."""

    def __init__(self, network: nn.Module, inputs: torch.Tensor, proposals: Proposals) -> None:
        self._network, self._inputs, self._proposals = network, inputs, proposals
        self._sites, self._total = proposals.state.sites, len(proposals.state.atoms)

    def decide(self) -> tuple[tuple[Group, ...], dict[str, str]]:
        """Sort the proposals into proven ones and layers that stay whole."""
        proposed, whole = self._proposals.first()
        named = _named(proposed, self._proposals)
        proven = self._survivors([each for each in named if not each.group.rolled], whole)
        silent = self._silent(proven)
        groups = [replace(each.group, proof=SILENCE if each.group.name in silent else INFLUENCE) for each in proven]
        groups += self._rolled([each.group for each in named if each.group.rolled], whole)
        groups += self._by_depgraph(groups, whole)
        groups.sort(key=lambda group: self._proposals.order[group.root])
        covered = {member for group in groups for member in group.members}
        return tuple(groups), {name: reason for name, reason in whole.items() if name not in covered}

    def _rolled(self, groups: Sequence[Group], whole: dict[str, str]) -> list[Group]:
        """The groups behind a roll that silence proves: channels arrive in another order than in the dense network."""
        found = []
        for group in groups:
            if self._always_silent(group):
                found.append(replace(group, proof=SILENCE))
            else:
                whole |= dict.fromkeys(
                    group.members, "its channels are rolled, and silencing them is not removing them"
                )
        return found

    def _by_depgraph(self, proven: Sequence[Group], whole: Mapping[str, str]) -> list[Group]:
        """Groups that Torch-Pruning's graph finds where an operation has no rule here, and that silence proves."""
        lost = [name for name, reason in whole.items() if NO_RULE in reason]
        if not lost:
            return []
        try:
            graph = DepGraphGroups(copied(self._network).requires_grad_(True), self._inputs[:1])
        except Exception:  # whatever Torch-Pruning raises of a network that it cannot trace
            return []
        found: list[Group] = []
        for name in lost:
            taken = {(slot.layer, slot.out) for group in (*proven, *found) for slot in group.slots}
            group = _depgraph_group(graph, name, self._proposals)
            if group and not taken & {(slot.layer, slot.out) for slot in group.slots} and self._always_silent(group):
                found.append(replace(group, proof=SILENCE))
        return found

    def _always_silent(self, group: Group) -> bool:
        told = False
        for roots in patterns(group):
            smaller, gone = copied(self._network), {group.name: roots}
            try:
                pruned_copy_of(self._network, smaller, [group], gone, self._inputs)
                error, change = errors(self._network, smaller, [group], gone, self._inputs)
                if error > STRICT:
                    return False
                told = told or change > TELLING * error
            except Exception:  # a layer that cannot be cut like this, or the network's own code
                return False
        return told

    def _survivors(self, proposals: list[Proposal], whole: dict[str, str]) -> list[Proposal]:
        """The proposals that agree together; those that do not are mended, or their layers stay whole."""
        current, settled = {each.group.name: each for each in proposals}, set[str]()
        before = dict[str, Proposal]()  # what a group was when another one like it was mended
        while current and (found := self._failure(list(current.values()))):
            round_, failure = found
            suspects = [each for each in current.values() if self._suspect(each, failure)] or list(current.values())
            blamed = [(each, alone[1]) for each in suspects if (alone := self._failure([each], (round_,)))]
            if not blamed:  # each holds alone, but not together
                blamed = [(each, failure) for each in suspects]
            for each, reason in blamed:
                name = each.group.name
                if current[name] is not each:
                    continue  # mended with another one that it is like
                at, mended = (None, None) if name in settled else self._mended(each, before.get(name))
                settled.add(name)
                if mended is None or _overlaps(mended, current, name):
                    del current[name]
                    whole |= dict.fromkeys(each.group.members, _reason(each, reason))
                else:
                    current[name] = mended
                    rest = [other for other in current.values() if other.group.name not in settled]
                    for guess in self._likewise(each, at, rest):
                        if not _overlaps(guess, current, guess.group.name):
                            before.setdefault(guess.group.name, current[guess.group.name])
                            current[guess.group.name] = guess
        return list(current.values())

    def _suspect(self, proposal: Proposal, failure: Disagreement) -> bool:
        return proposal.group.name in failure.groups or failure.layer in proposal.modules

    def _mended(self, proposal: Proposal, before: Proposal | None) -> tuple[int | None, Proposal | None]:
        """The group as something else that it could be, if that agrees, and its place among all of these.

        `before`: what was proposed, where `proposal` is what mended another group.
        """
        if before is not None and self._failure([before]) is None:
            return None, before
        for at, other in enumerate(others(self._proposals, before or proposal)):
            renamed = replace(other, group=replace(other.group, name=proposal.group.name))
            if self._failure([renamed]) is None:
                return at, renamed
        return None, None

    def _likewise(self, mended: Proposal, at: int | None, proposals: Sequence[Proposal]) -> Iterator[Proposal]:
        """Yield what mended a group, for those of `proposals` that are like it: the blocks of a network are alike.

        They are proven with all others; what does not hold is mended by itself.
        """
        alike = [each for each in proposals if at is not None and self._kind(each) == self._kind(mended)]
        for each in alike:
            if other := next(islice(others(self._proposals, each), at, None), None):
                yield replace(other, group=replace(other.group, name=each.group.name))

    def _kind(self, proposal: Proposal) -> tuple[object, ...]:
        """What code divides a group's channels, and which numbers there may shrink with them."""
        modules = {type(self._network.get_submodule(name)) for name in proposal.modules}
        return modules, [count.attribute for count in proposal.counts], proposal.choices

    def _failure(
        self, proposals: Sequence[Proposal], rounds: Sequence[int] = ROUNDS
    ) -> tuple[int, Disagreement] | None:
        """The round, and where the pruned network is not what the plan says in it; None where it always is.

        In each round every group loses other channels.
        """
        for round_ in rounds:
            gone = {each.group.name: patterns(each.group)[round_] for each in proposals}
            try:
                pruned = self._pruned(proposals, gone)
                influence(self._network, pruned, self._inputs, self._sites, Masks(self._total, proposals, gone))
            except Disagreement as failure:
                return round_, failure
        return None

    def _pruned(self, proposals: Sequence[Proposal], gone: Gone) -> nn.Module:
        smaller = copied(self._network)
        groups = [each.group for each in proposals]
        try:
            remove(smaller, groups, dict(gone))
        except Exception as error:  # a layer that cannot be cut like this
            raise Disagreement(groups[0].root, f"it cannot be cut: {error}") from error
        return smaller

    def _silent(self, proposals: list[Proposal]) -> set[str]:
        """The groups for which the silenced network gives what the pruned one gives."""
        names: set[str] = set()
        for round_ in (HALF, FIRST):
            gone = {each.group.name: patterns(each.group)[round_] for each in proposals}
            able = exact(self._network, self._inputs, self._sites, self._total, proposals, gone)
            names = able if round_ == HALF else names & able
            chosen = [each for each in proposals if each.group.name in names]
            if chosen and not self._agree(chosen, gone):
                names -= {each.group.name for each in chosen if not self._agree([each], gone)}
        return names

    def _agree(self, proposals: Sequence[Proposal], gone: Gone) -> bool:
        groups = [each.group for each in proposals]
        error, _ = errors(self._network, self._pruned(proposals, gone), groups, gone, self._inputs)
        return error <= TOLERANCE


def _named(proposals: Sequence[Proposal], known: Proposals) -> list[Proposal]:
    """The proposals in forward order, with names that differ."""
    ordered = sorted(proposals, key=lambda each: known.order[each.group.root])
    groups = unique([each.group for each in ordered])
    return [replace(each, group=group) for each, group in zip(ordered, groups, strict=True)]


def _depgraph_group(graph: DepGraphGroups, name: str, known: Proposals) -> Group | None:
    if not graph.traced(name):
        return None
    channels = width(known.layers[name], out=True)
    reach = graph.reach(name, range(channels))
    if reach.hindrance or uneven(reach.tied):
        return None
    names = {slot.layer for slot in reach.slots if slot.out and slot.layer in known.layers}
    members = tuple(sorted(names, key=lambda each: known.order[each]))
    multiple = Counter(reach.tied)[reach.tied[0]]
    return Group(plain(name), channels, members, name, multiple, reach.slots, reach.tied)


def _overlaps(mended: Proposal, current: Mapping[str, Proposal], name: str) -> bool:
    """Whether a mended group takes channels that another one has."""
    mine = torch.cat(list(mended.atoms.values()))
    rest = [each for other, each in current.items() if other != name]
    return any(bool(torch.isin(torch.cat(list(each.atoms.values())), mine).any()) for each in rest)


def _reason(proposal: Proposal, failure: Disagreement) -> str:
    if proposal.uneven:
        return f"its channels are split into unequal parts: {failure.what}"
    return failure.what


def check_steady(network: nn.Module, inputs: torch.Tensor) -> None:
    """Raise `BadInput` where the network gives values that are not finite, or others on the same input again."""
    with torch.no_grad():
        first, again = (tensors(network(inputs)) for _ in range(2))
    if not first:
        raise BadInput("network", type(network).__name__, "return tensors, in tuples, lists, dicts or dataclasses")
    for number, (one, other) in enumerate(zip(first, again, strict=True)):
        if one.is_floating_point() and not bool(torch.isfinite(one).all()):
            remedy = "its values are not finite on the example input: train it anew, or give it weights that are"
            raise BadInput("network", f"output {number}", remedy)
        if not close(one.double(), other.double()):
            remedy = "it differs from call to call on the same input: make the forward pass deterministic in evaluation"
            raise BadInput("network", f"output {number}", remedy)
