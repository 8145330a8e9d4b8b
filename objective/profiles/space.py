"""The search space: coupled layer groups on a device's channel grid, written as pruning ratios.

A group's output channels are pruned together. Counts that the device does not reward are left out: what is kept is
a multiple of the group's ``step`` (or the whole width), so each ratio has one kept count and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput
from prunefleet.objective.plain import Plain

RATIO_DIGITS = 6
PROOFS = ("silence", "influence")
"""The ways in which a group is proven: docs/pruning.md."""


@dataclass(frozen=True)
class GroupSpec(Plain):
    """One coupled layer group: its name, its width in channels, and the step of the device's channel grid.

    ``proof`` says how the group was proven, one of ``PROOFS``; None in profiles of before it was said. Two specs that
    differ in it alone are equal.
    """

    name: str
    width: int
    step: int
    proof: str | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        checks.name("group", self.name)
        checks.whole(f"width of {self.name}", self.width, low=1)
        checks.whole(f"step of {self.name}", self.step, low=1)
        if self.proof not in (None, *PROOFS):
            raise BadInput(f"proof of {self.name}", self.proof, f"give {' or '.join(PROOFS)}, or leave it out")


def levels(spec: GroupSpec) -> tuple[int, ...]:
    """Return the kept counts that a group may have, ascending: the multiples of its step, and its width."""
    return (*range(spec.step, spec.width, spec.step), spec.width)


def snap(ratio: float, width: int, step: int) -> int:
    """Return the number of channels on the grid that is nearest to pruning ``ratio`` of ``width``.

    Never 0, never more than ``width``; ratio 0 keeps the width exactly; a tie keeps the more.

    Raises:
        BadInput: the ratio is outside [0, 1), or width or step is below 1.
    """
    return _nearest((1 - checks.ratio("ratio", ratio)) * width, width, step)


@lru_cache(maxsize=2**16, typed=True)  # a search reads the same few ratios again and again
def _nearest(wanted: float, width: int, step: int) -> int:
    grid = levels(GroupSpec("group", width, step))
    # A tie is decided by counts, not by the last bit of a ratio: hence the rounding.
    return min(grid, key=lambda kept: (round(abs(kept - wanted), RATIO_DIGITS), -kept))


def ratio_of(kept: int, width: int) -> float:
    """Return the pruning ratio that keeps ``kept`` of ``width`` channels."""
    if checks.whole("kept", kept, low=1) > width:
        raise BadInput("kept", kept, f"give at most the width, {width}")
    return 1 - kept / width


@dataclass(frozen=True)
class Space(Plain):
    """The groups of one network; the search prunes at most ``max_ratio`` of each."""

    groups: tuple[GroupSpec, ...]
    max_ratio: float = 0.875

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        checks.ratio("max_ratio", self.max_ratio)
        names = [group.name for group in self.groups]
        if not names or len(set(names)) < len(names):
            raise BadInput("groups", names, "give at least one group, each with a name of its own")

    @property
    def widths(self) -> dict[str, int]:
        """The kept channels of the dense network."""
        return {group.name: group.width for group in self.groups}

    def levels(self, name: str) -> tuple[int, ...]:
        """Return the kept counts, ascending, that the search may give to a group."""
        group = self._group(name)
        return tuple(k for k in levels(group) if k == group.width or ratio_of(k, group.width) <= self.max_ratio + 1e-9)

    def kept(self, ratios: Mapping[str, float]) -> dict[str, int]:
        """Return the channels that each group keeps; a group without a ratio stays whole.

        Raises:
            BadInput: a group is unknown, or a ratio is outside [0, 1).
        """
        for name, ratio in ratios.items():
            self._group(name)
            checks.ratio(f"ratio.{name}", ratio)
        return {group.name: snap(ratios.get(group.name, 0.0), group.width, group.step) for group in self.groups}

    def ratios(self, kept: Mapping[str, int]) -> dict[str, float]:
        """Return the pruning ratios of kept channels; :meth:`kept` of them gives the same channels on the grid."""
        for name, count in kept.items():
            checks.whole(f"kept.{name}", count, low=1)
            if count > self._group(name).width:
                raise BadInput(f"kept.{name}", count, f"give at most the width, {self._group(name).width}")
        return {group.name: ratio_of(kept.get(group.name, group.width), group.width) for group in self.groups}

    def uniform(self, ratio: float) -> dict[str, int]:
        """Return the kept channels of pruning every group by the same ratio, on the grid."""
        return self.kept({group.name: ratio for group in self.groups})

    def uniform_ladder(self) -> tuple[dict[str, int], ...]:
        """Return every distinct aligned uniform candidate, dense first, down to ``max_ratio``."""
        borders = {0.0, self.max_ratio}
        for group in self.groups:
            counts = levels(group)
            borders |= {1 - (low + high) / 2 / group.width for low, high in pairwise(counts)}
        rising = sorted(border for border in borders if border <= self.max_ratio)
        tried = [0.0, *((low + high) / 2 for low, high in pairwise(rising)), self.max_ratio]
        rungs = {tuple(rung.items()): rung for rung in map(self.uniform, tried)}
        return tuple(rungs.values())

    def parameters(self) -> dict[str, Any]:
        """Return the ``ratio`` block of a sweep file: every ratio of every group on the grid."""
        return {"parameters": {group.name: self._values(group) for group in self.groups}}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any], widths: Mapping[str, int], step: int) -> Space:
        """Read the ``ratio`` block of a sweep file for a network with these group widths.

        Groups that the block leaves out stay whole and are no part of the space.

        Raises:
            BadInput: a group is unknown, or its distribution can give a ratio outside [0, 1).
        """
        block = checks.mapping("ratio", parameters)
        inner = checks.mapping("ratio.parameters", block.get("parameters", block))
        largest = 0.0
        for name, distribution in inner.items():
            if name not in widths:
                raise BadInput(f"ratio.{name}", distribution, f"name a layer group: {', '.join(widths)}")
            largest = max(largest, *(checks.ratio(f"ratio.{name}", end) for end in _ends(name, distribution)))
        return cls(tuple(GroupSpec(name, widths[name], step) for name in inner), largest)

    def _values(self, group: GroupSpec) -> dict[str, Any]:
        ratios = [round(ratio_of(kept, group.width), RATIO_DIGITS) for kept in reversed(self.levels(group.name))]
        return {"values": ratios} if len(ratios) > 1 else {"value": ratios[0]}

    def _group(self, name: str) -> GroupSpec:
        for group in self.groups:
            if group.name == name:
                return group
        raise BadInput(f"ratio.{name}", name, f"name a layer group: {', '.join(self.widths)}")


def _ends(name: str, distribution: object) -> Sequence[object]:
    """Return the values between which a W&B distribution of one ratio lies."""
    keys = checks.mapping(f"ratio.{name}", distribution)
    if "value" in keys:
        return [keys["value"]]
    if isinstance(keys.get("values"), Sequence) and keys["values"]:
        return list(keys["values"])  # type: ignore[call-overload, no-any-return]
    if "min" in keys and "max" in keys:
        return [keys["min"], keys["max"]]
    raise BadInput(f"ratio.{name}", distribution, "give value, values, or min and max")
