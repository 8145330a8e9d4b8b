"""Which points of a profile are measured: each group pruned alone, and mixed candidates."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from prunefleet.objective.profiles.space import GroupSpec, Space

Kept = dict[str, int]
TIMED, LEAST_MIXED = 400, 250
"""Networks whose latencies a plan measures, and how many of them are mixed candidates at the least."""


@dataclass(frozen=True)
class Effort:
    """The amount that `make_profile` measures.

    `examples` of validation per point; at most `levels` per group; `mixed` extra candidates (None: see `mixed_beside`),
    for which no new session begins after `seconds`; `together` networks are measured at once, for `session_s` seconds
    at most, `mixed_s` where all are mixed: a model of the device takes many of them together, a curve takes each as it
    is.
    """

    examples: int = 2500
    levels: int = 7
    mixed: int | None = None
    seconds: float = 480.0
    together: int = 12
    session_s: float = 6.0
    mixed_s: float = 2.0
    seed: int = 0

    def mixed_beside(self, alone: int) -> int:
        """Return how many mixed candidates are timed beside so many networks of which one group is pruned."""
        return max(TIMED - alone, LEAST_MIXED) if self.mixed is None else self.mixed


def points(space: Space, effort: Effort) -> list[tuple[str, Kept]]:
    """Return all points: (group, kept) of each group pruned alone, then ("", kept) of mixed ones, all distinct."""
    alone = [
        (spec.name, {**space.widths, spec.name: level})
        for spec in space.groups
        for level in _levels(space, spec, effort)
    ]
    seen = {name_of(kept) for _, kept in alone} | {name_of(space.widths)}
    mixed: list[tuple[str, Kept]] = []
    wanted = effort.mixed_beside(len(alone))
    for kept in _candidates(space, effort.seed, wanted):
        if len(mixed) < wanted and name_of(kept) not in seen:
            seen.add(name_of(kept))
            mixed.append(("", kept))
    return alone + mixed


def _levels(space: Space, spec: GroupSpec, effort: Effort) -> list[int]:
    """At most `effort.levels` of a group's levels below its width, evenly chosen."""
    below = space.levels(spec.name)[:-1]
    if len(below) <= effort.levels:
        return list(below)
    return [below[index] for index in np.linspace(0, len(below) - 1, effort.levels).round().astype(int)]


def _candidates(space: Space, seed: int, wanted: int) -> Iterator[Kept]:
    """The aligned uniform candidates, then random ones: each group freely, or around one depth, in turn.

    Some repeat others; there are enough for so many as are `wanted`.
    """
    yield from space.uniform_ladder()
    random = np.random.default_rng(seed)
    for turn in range(20 * wanted):
        depth, spread = (0.5, 0.5) if turn % 2 else (random.uniform(0, space.max_ratio), 0.2)
        ratios = np.clip(depth + spread * random.uniform(-1, 1, len(space.groups)), 0, space.max_ratio)
        yield space.kept({spec.name: float(ratio) for spec, ratio in zip(space.groups, ratios, strict=True)})


def name_of(kept: Mapping[str, int]) -> str:
    """Return the name of a point: its channels by group."""
    return ",".join(f"{group}={count}" for group, count in sorted(kept.items()))
