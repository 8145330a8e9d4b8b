"""The grid of a pruning sweep, kept channels and choices beside them, and what its trials teach about its points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from prunefleet.infra.controller.candidates import Floats, Ints
from prunefleet.infra.controller.contract import StoredTrial, SweepSpec, devices_of
from prunefleet.infra.controller.parameters import Parameter
from prunefleet.infra.controller.pruning.choices import choices_of
from prunefleet.objective.errors import BadInput
from prunefleet.objective.profiles.profile import Profile
from prunefleet.objective.profiles.space import GroupSpec, levels, ratio_of, snap

RATIO = "ratio"  # the block of the sweep file that holds one ratio per group
Kept = tuple[int, ...]  # channels by group, in the order of the profile, then the marks of choices
Answers = tuple[tuple[Kept, float], ...]


@dataclass(frozen=True)
class ChannelAxis:
    """One group: the kept counts that may be tried, ascending, and the ratio that asks for each."""

    spec: GroupSpec
    leaf: Parameter | None
    kept: tuple[int, ...]
    ratios: tuple[float, ...]

    @cached_property
    def levels(self) -> dict[int, int]:
        """The level that keeps just so many channels, where there is one."""
        return {count: level for level, count in enumerate(self.kept)}

    def nearest(self, count: int) -> int:
        """The level that keeps as nearly `count` channels as may be."""
        exact = self.levels.get(count)
        if exact is not None:
            return exact
        return min(range(len(self.kept)), key=lambda level: (abs(self.kept[level] - count), -level))


class ChannelGrid:
    """The channel grid of a sweep: the profile's groups within the bounds of the sweep's `ratio` block, and choices.

    A point has a level number for each group, then one for each choice. `groups` counts the first, and `timed` how many
    columns of kept channels and marks a latency may depend on; `devices` are those of `devices_of` the profile. Raises
    `BadInput` for a group that the profile does not know, or a ratio outside [0, 1).
    """

    def __init__(self, sweep: SweepSpec, profile: Profile) -> None:
        leaves = {leaf.path[1]: leaf for leaf in sweep.space.leaves if leaf.path[0] == RATIO and len(leaf.path) == 2}
        known = [group.name for group in profile.groups]
        for name in leaves:
            if name not in known:
                raise BadInput(f"parameters.{RATIO}.{name}", name, f"name a group of the profile: {', '.join(known)}")
        self.axes = tuple(_axis(group, leaves.get(group.name)) for group in profile.groups)
        free = [leaf for leaf in sweep.space.free if leaf.path[0] != RATIO]
        self.choices = choices_of(free, profile)
        self.others = tuple(leaf for leaf in free if leaf not in [choice.leaf for choice in self.choices])
        self.groups = len(self.axes)
        self.devices = devices_of(profile)
        marks = sum(len(choice.values) - 1 for choice in self.choices)
        self.timed = self.groups + sum(len(choice.values) - 1 for choice in self.choices if choice.timed)
        self.widths = np.array([*(axis.spec.width for axis in self.axes), *[1] * marks], dtype=float)
        self._columns = [np.array(axis.kept, dtype=float)[:, None] for axis in self.axes]
        self._columns += [choice.marks for choice in self.choices]

    @property
    def sizes(self) -> list[int]:
        """The number of levels of each group and choice."""
        return [*(len(axis.kept) for axis in self.axes), *(len(choice.values) for choice in self.choices)]

    def kept(self, points: Ints) -> Floats:
        """Kept channels and marks [n, columns] of points [n, groups and choices] of level numbers."""
        return np.concatenate([table[levels] for table, levels in zip(self._columns, points.T, strict=True)], axis=1)

    def tried(self, trial: StoredTrial) -> Kept | None:
        """What a trial kept or will keep, and its marks; None when its ratios or choices cannot be read."""
        try:
            channels = [_kept_by(axis, trial.params) for axis in self.axes]
        except BadInput:
            return None
        for choice in self.choices:
            level = choice.level(trial.params)
            if level is None:
                return None
            channels += map(int, choice.marks[level])
        return tuple(channels)

    def nearest(self, kept: Sequence[int]) -> tuple[int, ...]:
        """The level numbers of the point nearest to these kept channels, with the choices of their marks."""
        channels = [axis.nearest(count) for axis, count in zip(self.axes, kept, strict=False)]
        return (*channels, *self._chosen(kept))

    def exact(self, kept: Kept) -> tuple[int, ...] | None:
        """The level numbers of the point that keeps exactly these channels, if the sweep's bounds allow it."""
        point = [axis.levels.get(count) for axis, count in zip(self.axes, kept, strict=False)]
        found = tuple(level for level in point if level is not None)
        return (*found, *self._chosen(kept)) if len(found) == len(point) else None

    def _chosen(self, kept: Sequence[int]) -> Iterator[int]:
        """The level of each choice, by the marks behind the channels; the reference where there are none."""
        place = self.groups
        for choice in self.choices:
            marks = kept[place : place + len(choice.values) - 1]
            yield choice.marked(marks) if marks else choice.reference
            place += len(marks)

    def counts(self, point: Sequence[int]) -> dict[str, int]:
        """Kept channels by group's name."""
        return {axis.spec.name: axis.kept[level] for axis, level in zip(self.axes, point, strict=False)}

    def warm(self, profile: Profile) -> list[tuple[int, ...]]:
        """The profile's warm points in order, each moved to the nearest point that the sweep's bounds allow."""
        specs = [axis.spec for axis in self.axes]
        wanted = [[snap(ratios.get(g.name, 0.0), g.width, g.step) for g in specs] for ratios in profile.warm]
        return [self.nearest(kept) for kept in wanted]

    def matrix(self, kept: Sequence[Kept]) -> Floats:
        """A list of kept channels and marks as [n, columns]."""
        return np.array(kept, dtype=float).reshape(-1, len(self.widths))

    def params(self, point: Sequence[int], rng: np.random.Generator) -> dict[str, Any]:
        """The parameters that ask for a point; other free parameters of the sweep are drawn at random."""
        ratios = {
            axis.leaf.name: axis.ratios[level]
            for axis, level in zip(self.axes, point, strict=False)
            if axis.leaf is not None and not axis.leaf.constant
        }
        levels = zip(self.choices, point[self.groups :], strict=True)
        chosen = {choice.leaf.name: choice.values[level] for choice, level in levels}
        return ratios | chosen | {leaf.name: leaf.distribution.quantile(float(rng.random())) for leaf in self.others}


@dataclass(frozen=True)
class DeviceFacts:
    """What trials taught of one device: latency ratios by kept channels, and the dense model's median latency."""

    latency_at: Answers
    baseline_ms: float | None


@dataclass(frozen=True)
class Facts:
    """What trials taught, by kept channels.

    `tried` holds all, in step with `names`; `known` those whose drop was measured or is still to come; `had` those that
    ran on some device; `devices` are in the order of the grid's.
    """

    names: tuple[str, ...]
    tried: tuple[Kept, ...]
    drop_at: Answers
    devices: tuple[DeviceFacts, ...]
    had: tuple[Kept, ...]
    pending: tuple[Kept, ...]
    impossible: tuple[Kept, ...]
    known: tuple[Kept, ...]


def read(space: ChannelGrid, trials: Sequence[StoredTrial]) -> Facts:
    """What the trials teach about kept channels."""
    known = [(trial, kept) for trial in trials if (kept := space.tried(trial)) is not None]
    answered = [(trial, kept) for trial, kept in known if trial.answered]
    devices = tuple(_on_device(device, answered) for device in space.devices)
    return Facts(
        names=tuple(trial.name for trial, _ in known),
        tried=tuple(kept for _, kept in known),
        drop_at=tuple((kept, trial.drop) for trial, kept in answered if trial.drop is not None),
        devices=devices,
        had=tuple(kept for trial, kept in answered if _ran(trial)),
        pending=tuple(kept for trial, kept in known if trial.pending),
        impossible=tuple(kept for trial, kept in known if trial.impossible),
        known=tuple(kept for trial, kept in known if trial.pending or (trial.answered and trial.drop is not None)),
    )


def _on_device(device: str | None, answered: Sequence[tuple[StoredTrial, Kept]]) -> DeviceFacts:
    told = [(kept, *trial.measured_on(device)) for trial, kept in answered]
    dense = [baseline_ms for _, _, baseline_ms in told if baseline_ms is not None]
    latency_at = tuple((kept, ratio) for kept, ratio, _ in told if ratio is not None and ratio > 0)
    return DeviceFacts(latency_at, float(np.median(dense)) if dense else None)


def _ran(trial: StoredTrial) -> bool:
    ratios = (trial.latency_ratio, *trial.latency_ratios.values())
    return any(ratio is not None and ratio > 0 for ratio in ratios)


def _axis(group: GroupSpec, leaf: Parameter | None) -> ChannelAxis:
    if leaf is None:
        return ChannelAxis(group, None, (group.width,), (0.0,))
    counts = {snap(ratio, group.width, group.step): ratio for ratio in _ratios(group, leaf)}
    kept = tuple(sorted(counts))
    return ChannelAxis(group, leaf, kept, tuple(counts[count] for count in kept))


def _ratios(group: GroupSpec, leaf: Parameter) -> Iterator[float]:
    """The ratios that the sweep allows, those that lie best on the group's channel grid last."""
    if leaf.distribution.levels is not None:
        off = {
            ratio: abs(snap(ratio, group.width, group.step) - (1 - ratio) * group.width)
            for ratio in leaf.distribution.levels
        }
        yield from sorted(off, key=lambda ratio: (-off[ratio], ratio))
        return
    lowest, highest = leaf.distribution.quantile(0.0), leaf.distribution.quantile(1.0)
    on_grid = [ratio_of(kept, group.width) for kept in levels(group)]
    inside = [ratio for ratio in on_grid if lowest - 1e-9 <= ratio <= highest + 1e-9]
    # Bounds between two steps of the grid leave one level: the one that the lower bound snaps to.
    yield from inside or [lowest]


def _kept_by(axis: ChannelAxis, params: Mapping[str, Any]) -> int:
    if axis.leaf is None:
        return axis.spec.width
    ratio = axis.leaf.distribution.quantile(0.5) if axis.leaf.constant else params.get(axis.leaf.name)
    try:
        return _snapped(ratio, axis.spec.width, axis.spec.step)
    except TypeError:  # no number, and nothing that could be looked up
        return snap(ratio, axis.spec.width, axis.spec.step)  # type: ignore[arg-type]


@lru_cache(maxsize=1 << 16, typed=True)
def _snapped(ratio: Any, width: int, step: int) -> int:
    """Remembered: thousands of trials share their groups' few levels."""
    return snap(ratio, width, step)
