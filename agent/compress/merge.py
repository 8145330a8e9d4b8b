"""Many groups as few dimensions: groups that are alike share one pruning ratio, and each still gets its own channels.

A search in a hundred dimensions learns little from tens of trials. The blocks of a stage do the same work at the same
width, so their layers of one role are put together first.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from prunefleet.agent.compress.group import Group
from prunefleet.objective.errors import BadInput
from prunefleet.objective.profiles.space import PROOFS, GroupSpec, Space

MOST = 24
OTHER_ROLE = 3.0
"""How far apart two groups are that do different work: as far as widths of 1 to 8."""


@dataclass(frozen=True)
class Dimension:
    """Groups, in forward order, that share one pruning ratio; `name` is a group's own where it is alone."""

    name: str
    groups: tuple[str, ...]


def merge(groups: Sequence[Group], most: int = MOST) -> tuple[Dimension, ...]:
    """At most `most` dimensions of `groups`, in forward order; each group by itself where there are no more.

    Complete linkage: the two sets are joined whose least alike groups are most alike, the earlier pair on a tie. The
    same groups always give the same dimensions.
    """
    if most < 1:
        raise BadInput("most", most, "allow at least one dimension")
    apart = [[_distance(a, b, abs(i - j) / len(groups)) for j, b in enumerate(groups)] for i, a in enumerate(groups)]
    sets = [[place] for place in range(len(groups))]

    def farthest(one: int, other: int) -> float:
        return max(apart[i][j] for i in sets[one] for j in sets[other])

    while len(sets) > most:
        one, other = min(combinations(range(len(sets)), 2), key=lambda pair: (farthest(*pair), pair))
        sets[one] = sorted(sets[one] + sets.pop(other))
    return tuple(_dimension([groups[place].name for place in each]) for each in sets)


def _weakest(proofs: Sequence[str | None]) -> str | None:
    """The proof that all of some groups have: silence, if no other is among them."""
    return next((each for each in reversed((*PROOFS, None)) if each in proofs), None)


def _dimension(names: Sequence[str]) -> Dimension:
    name = names[0] if len(names) == 1 else f"{names[0]}_and_{len(names) - 1}_more"
    return Dimension(name, tuple(names))


def _distance(one: Group, other: Group, way: float) -> float:
    """How unlike two groups are: in their role, in octaves of width, and in the share of the network between them."""
    widths = abs(math.log2(one.width / other.width))
    return OTHER_ROLE * (_role(one) != _role(other)) + widths + way


def _role(group: Group) -> str:
    """What a group's first layer does in its block: its path with the numbers of what it lies in left out.

    `layer3.2.conv1` and `layer3.4.conv1` have one role, `layer3.2.conv2` another.
    """
    block, _, own = group.root.rpartition(".")
    return re.sub(r"\d+[a-z]?(?![a-z])", "", block) + "." + own


@dataclass(frozen=True)
class MergedSpace(Space):
    """A search space of groups whose ratios may also be given by dimension; `dimensions` are those of `merge`."""

    dimensions: tuple[Dimension, ...] = ()

    def kept(self, ratios: Mapping[str, float]) -> dict[str, int]:
        """Return the channels that each group keeps; a dimension's ratio is that of each of its groups.

        Raises:
            BadInput: a name is unknown, a ratio is outside [0, 1), or a group is named twice.
        """
        return super().kept(self.expand(ratios))

    def expand(self, ratios: Mapping[str, float]) -> dict[str, float]:
        """Return ratios by group, of ratios by dimension or group."""
        inside = {dimension.name: dimension.groups for dimension in self.dimensions}
        expanded: dict[str, float] = {}
        for name, ratio in ratios.items():
            for group in inside.get(name, (name,)):
                if group in expanded:
                    raise BadInput(f"ratio.{name}", ratio, f"give {group} one ratio: by itself or by its dimension")
                expanded[group] = ratio
        return expanded

    @property
    def searched(self) -> Space:
        """The space that is searched: one group for each dimension, with the width and the grid of its widest group."""
        specs = {spec.name: spec for spec in self.groups}
        widest = [max((specs[name] for name in each.groups), key=lambda spec: spec.width) for each in self.dimensions]
        proofs = [_weakest([specs[name].proof for name in each.groups]) for each in self.dimensions]
        named = zip(self.dimensions, widest, proofs, strict=True)
        found = tuple(GroupSpec(each.name, spec.width, spec.step, proof) for each, spec, proof in named)
        return Space(found, self.max_ratio)

    def parameters(self) -> dict[str, Any]:
        """Return the ``ratio`` block of a sweep file: every ratio of every dimension on the grid."""
        return self.searched.parameters()
