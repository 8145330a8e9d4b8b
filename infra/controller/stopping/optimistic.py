"""Early termination beside hyperband: a run that could not become the best even if all went well for it.

What is possible is what the sweep's finished runs have shown: from the k-th value of the metric on, the most that any
of them still gained until its end. Deep pruning gains more in fine-tuning than light pruning, so a run that is worse
than all finished ones were at that time is beyond experience: it goes on, and teaches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from prunefleet.infra.controller.stopping.hyperband import RunHistory, StopDecision, whole
from prunefleet.objective.errors import BadInput

KEYS = ("type", "min_iter", "min_runs")
MIN_RUNS = 4


@dataclass(frozen=True)
class Hopeless(StopDecision):
    """A run to stop: at `bracket` values it had `value`, and could come to `threshold` at best."""

    best: float = math.nan

    def __str__(self) -> str:
        return (
            f"early_terminate: {self.value:.6g} after {self.bracket} values may become {self.threshold:.6g} at best, "
            f"and the best run has {self.best:.6g}"
        )


@dataclass(frozen=True)
class Optimistic:
    """Runs are judged from their `min_iter`-th value on, once `min_runs` have finished."""

    min_iter: int = 1
    min_runs: int = MIN_RUNS

    @classmethod
    def from_config(cls, block: Mapping[str, Any]) -> Self:
        """The rule in a sweep's `early_terminate` block. Raises `BadInput` naming the setting that cannot be right."""
        min_iter, min_runs = whole(block, "min_iter") or 1, whole(block, "min_runs") or MIN_RUNS
        if min_runs < 2:
            raise BadInput("early_terminate.min_runs", min_runs, "give at least 2: one run shows no usual gain")
        return cls(min_iter, min_runs)

    @property
    def ignored(self) -> list[str]:
        """What is left out beside other settings, a line each."""
        return []

    def to_stop(self, runs: Sequence[RunHistory], *, maximise: bool) -> list[StopDecision]:
        """The running runs without hope, in the order of `runs`. A run that logs no finite value is left alone."""
        sign = 1.0 if maximise else -1.0
        done = [[sign * value for value in run.history] for run in runs if run.finished and _finite(run.history)]
        if len(done) < self.min_runs:
            return []
        best = max(history[-1] for history in done)
        found = [self._judge(run, sign, done, best) for run in runs if run.running and _finite(run.history)]
        return [stop for stop in found if stop is not None]

    def _judge(self, run: RunHistory, sign: float, done: Sequence[Sequence[float]], best: float) -> StopDecision | None:
        count, now = len(run.history), sign * run.history[-1]
        if count < self.min_iter:
            return None
        alike = [history for history in done if len(history) > count]
        gains = [history[-1] - history[count - 1] for history in alike]
        if len(alike) < self.min_runs or now < min(history[count - 1] for history in alike):
            return None
        gain = max(*gains, 0.0)
        if best - now <= gain:
            return None
        return Hopeless(run.name, count, sign * now, sign * (now + gain), sign * best)


def _finite(history: Sequence[float]) -> bool:
    return len(history) > 0 and all(map(math.isfinite, history))
