"""A group that is to be proven, with the channels of every tensor that it takes along."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from prunefleet.agent.compress.group import Group
from prunefleet.agent.compress.trace.channel_sets import Count


@dataclass(frozen=True)
class Proposal:
    """A group and what a trial needs to know of it.

    `atoms` are those that go with each set of root channels, by the set's number in `group.tied`; `modules` are those
    whose code divides these channels or views them; `counts` are numbers there that may have to shrink; `choices` is
    the number of ways in which divided dimensions could. `start` is the layer that it was found from, and its channels.
    `uneven`: whether the code splits the channels into unequal parts.
    """

    group: Group
    atoms: Mapping[int, torch.Tensor]
    modules: frozenset[str]
    counts: tuple[Count, ...] = ()
    choices: int = 1
    start: tuple[str, tuple[int, ...]] = ("", ())
    uneven: bool = False

    def counted(self) -> Iterator["Proposal"]:
        """Yield the same group with numbers of modules that shrink with it: all of them, then each alone."""
        if self.counts:
            yield replace(self, group=replace(self.group, counts=self.counts))
        if len(self.counts) > 1:
            for count in self.counts:
                yield replace(self, group=replace(self.group, counts=(count,)))


Gone = Mapping[str, set[int]]
"""By group, the numbers of the root channels that are removed."""


class Masks:
    """What stays of every tensor of a traced network without some root channels of some groups."""

    def __init__(self, total: int, proposals: Sequence[Proposal], gone: Gone) -> None:
        self._owner = torch.full((total,), -1)
        self._names = [proposal.group.name for proposal in proposals]
        for place, proposal in enumerate(proposals):
            roots = gone[proposal.group.name]
            for bundle, atoms in proposal.atoms.items():
                if bundle in roots:
                    self._owner[atoms] = place

    def kept(self, atoms: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Return which values of a tensor of this shape stay, bool in its shape."""
        return (self._owner[atoms] < 0).expand(shape)

    def losing(self, *atoms: torch.Tensor) -> set[str]:
        """Return the names of the groups that lose any of these atoms."""
        owners = {int(owner) for each in atoms for owner in torch.unique(self._owner[each])}
        return {self._names[owner] for owner in owners if owner >= 0}


def patterns(group: Group) -> list[set[int]]:
    """Return what is tried of a group: sets of root channels from each end, the middle, and a random half.

    At least one set of those that go together stays.
    """
    bundles = group.bundles()
    third = max(1, len(bundles) // 3)
    random = torch.randperm(len(bundles), generator=torch.Generator().manual_seed(len(bundles))).tolist()
    middle = (len(bundles) - third) // 2
    half = max(1, len(bundles) // 2)
    tried = [
        bundles[:third],
        bundles[-third:],
        bundles[middle : middle + third],
        [bundles[at] for at in random[:half]],
    ]
    return [group.all_of(each[: len(bundles) - 1]) for each in tried]
