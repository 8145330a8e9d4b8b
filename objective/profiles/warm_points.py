"""Where a search starts: dense, aligned uniform, and what the curves of single groups suggest.

A curve tells the metric of one group pruned alone before any fine-tuning. Such drops are several times those after
fine-tuning and they saturate towards chance, so they are desaturated, D = −A·ln(1 − drop/A), before they are added up;
and the greedy points stop at several depths around the goal, for the factor between the two is not known beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count

from prunefleet.objective.goals.goal import Goal, Kind
from prunefleet.objective.profiles.space import Space

Curves = Mapping[str, Mapping[int, tuple[float, float]]]
"""By group and kept channels: metric without fine-tuning, latency ratio."""

UNIFORM = (0.25, 0.5, 0.75)
DEPTHS = (3.0, 6.0, 12.0, 24.0)  # one-shot drop over the drop allowed after fine-tuning
USUAL_DROP = 0.01
SPEEDS = (1.2, 1.0, 0.85, 0.7)  # most_accurate: predicted latency over the limit
NO_COST = 1e-4
DEEPEST = 8.0


def warm_start(space: Space, dense_metric: float, curves: Curves, goal: Goal) -> list[dict[str, int]]:
    """Return kept channels by group: dense, up to three uniform, up to four greedy, all distinct."""
    found = [dict(space.widths)]
    ladder = [rung for rung in space.uniform_ladder() if rung not in found]
    for wanted in UNIFORM:
        rung = space.uniform(wanted)
        near = rung if rung not in found else next((other for other in ladder if other not in found), None)
        found += [near] if near else []
    steps = _Steps(space, dense_metric, curves)
    for kept in _greedy(steps, goal):
        if kept not in found:
            found.append(kept)
        if len(found) >= 1 + len(UNIFORM) + len(DEPTHS):
            break
    return found


def _greedy(steps: _Steps, goal: Goal) -> Iterator[dict[str, int]]:
    """Yield greedy candidates at the goal's depths, then at others for want of distinct ones."""
    if goal.kind == Kind.MOST_ACCURATE and goal.max_latency_ratio is not None:
        yield from (steps.until(math.inf, speed * goal.max_latency_ratio) for speed in SPEEDS)
    drop = (goal.max_drop if goal.kind == Kind.FASTEST else None) or USUAL_DROP
    yield from (steps.until(depth * drop, 0.0) for depth in DEPTHS)
    for step in count(1):
        depth = DEPTHS[0] / 2 * 1.25**step * drop
        if depth > DEEPEST:
            return
        yield steps.until(depth, 0.0)


@dataclass(frozen=True)
class _Steps:
    """Groups made smaller one step at a time, the step with the most latency saved for the metric lost first."""

    space: Space
    dense_metric: float
    curves: Curves

    def until(self, budget: float, ratio: float) -> dict[str, int]:
        """Return kept channels once no step fits into ``budget``, or the predicted latency is at most ``ratio``."""
        kept, spent, latency = dict(self.space.widths), 0.0, 1.0
        while latency > ratio:
            options = [
                (saved / max(cost, NO_COST), group, level, cost, saved)
                for group in self.curves
                for level, cost, saved in self._options(group, kept[group])
                if spent + cost <= budget and saved > 0
            ]
            if not options:
                break
            _, group, level, cost, saved = max(options)
            kept[group], spent, latency = level, spent + cost, latency * math.exp(-saved)
        return kept

    def _options(self, group: str, now: int) -> list[tuple[int, float, float]]:
        """Return smaller levels of a group, what each costs beyond now, and the logarithm of the latency it saves."""
        cost, latency = self._cost(group, now), self._latency(group, now)
        lower = [level for level in self.space.levels(group) if level < now and level in self.curves[group]]
        return [(k, self._cost(group, k) - cost, math.log(latency / self._latency(group, k))) for k in lower]

    def _cost(self, group: str, kept: int) -> float:
        """Return the desaturated drop; pruning more never costs less, whatever the noise says."""
        measured = [metric for level, (metric, _) in self.curves[group].items() if level >= kept]
        drop = max(0.0, self.dense_metric - min(measured, default=self.dense_metric))
        ceiling = max(self.dense_metric, 1e-6)
        return -ceiling * math.log(max(1 - drop / ceiling, 1e-3))

    def _latency(self, group: str, kept: int) -> float:
        """Return the latency ratio; pruning more never is slower, whatever the noise says."""
        return min([1.0, *(ratio for level, (_, ratio) in self.curves[group].items() if level >= kept)])
