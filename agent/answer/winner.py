"""Which of a sweep's scored runs wins, and what the search has added to the points it started from."""

import json
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from prunefleet.agent.tracking.tracked_run import RunRecord
from prunefleet.objective.goals.goal import Goal, Kind
from prunefleet.objective.goals.pareto import hypervolume
from prunefleet.objective.goals.score import best, values_on_all


def choose(runs: Sequence[RunRecord], goal: Goal, dense_holdout: float) -> tuple[RunRecord, bool]:
    """The best run by its score, the drop being the mean of those on validation and on holdout.

    Validation has guided the search, so the best found there is partly luck; holdout has not been looked at, and both
    together have half the noise of either. A candidate that ran several times goes by the mean of its runs, or the
    luckiest of them would win; of its runs the one that lost least ships. Also returns whether that one's holdout by
    itself keeps the goal's limit on the drop.
    """
    holdout = {run.name: dense_holdout - float(run.summary[f"holdout_{goal.metric}"]) for run in runs}
    lost = {run.name: (float(run.summary["metric_drop"]) + holdout[run.name]) / 2 for run in runs}

    together: dict[str, list[RunRecord]] = {}
    for run in runs:
        together.setdefault(_candidate(run), []).append(run)

    def pooled(run: RunRecord) -> float:
        alike = together[_candidate(run)]
        drop = fmean(lost[other.name] for other in alike)
        metric = float(run.summary[f"val_{goal.metric}"]) + float(run.summary["metric_drop"]) - drop
        return float(values_on_all(metric, drop, _timed(run, alike), goal))

    chosen = best(sorted(runs, key=lambda run: lost[run.name]), pooled) or runs[0]
    limit = goal.max_drop if goal.kind == Kind.FASTEST else None
    return chosen, limit is None or holdout[chosen.name] <= limit


def published(run: RunRecord) -> str:
    """The artifact with a scored run's network, within its project.

    The latest, which its score is of: an attempt that was killed before it was scored may have left another.
    """
    return f"candidate-{run.name}:latest"


def _timed(run: RunRecord, alike: Sequence[RunRecord]) -> list[tuple[float, float | None]]:
    """On each device the mean latency ratio of runs of one candidate, and the dense network's milliseconds."""

    def told(other: RunRecord) -> Mapping[str, Mapping[str, Any]]:
        return dict(other.summary.get("devices") or {"": other.summary})

    shared = [name for name in told(run) if all(name in told(other) for other in alike)]
    return [
        (
            fmean(float(told(other)[name]["latency_ratio"]) for other in alike),
            told(run)[name].get("baseline_p50_ms"),
        )
        for name in shared
    ]


def _candidate(run: RunRecord) -> str:
    """What two runs of the same candidate share, as a key: all that was asked but the seed."""
    recipe = {name: value for name, value in dict(run.config.get("recipe") or {}).items() if name != "seed"}
    return json.dumps([run.config.get("kept", run.name), run.config.get("measure"), recipe], sort_keys=True)


def gain(scored: Sequence[RunRecord], warm: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """Hypervolume (drop, latency ratio) of the warm points, of all scored runs, and what the search added."""

    def area(runs: Sequence[RunRecord]) -> float:
        return hypervolume([(float(run.summary["metric_drop"]), float(run.summary["latency_ratio"])) for run in runs])

    first, whole = area([run for run in scored if run.config.get("kept") in list(warm)]), area(scored)
    return {"warm": first, "all": whole, "gain": whole - first}
