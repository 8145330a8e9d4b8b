"""Looks on while a trial runs: seconds by stage, rows on the way, and whether it should end."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from prunefleet.objective.trial import Failure, FailureKind, TrialFailed

Row = Mapping[str, float]
TOO_LONG = "not done within recipe.timeout_minutes"


@dataclass
class StageWatch:
    """`log` takes rows of the history, `stop` says why to end or None, `incumbent` the best score of the sweep or None.

    `stage` is the one under way or the last; after `deadline`, by `time.monotonic`, the trial ends as timed out.
    """

    log: Callable[[Row], None] = lambda row: None
    stop: Callable[[], str | None] = lambda: None
    incumbent: Callable[[], float | None] = lambda: None
    deadline: float = math.inf
    seconds: dict[str, float] = field(default_factory=dict)
    stage: str = "start"
    _within: list[float] = field(default_factory=list)  # of each stage under way, the seconds of stages within it

    @contextmanager
    def during(self, stage: str) -> Iterator[None]:
        """Time a stage; one within another takes its time from it.

        Raises `TrialFailed` of kind INTERRUPTED, with the reason, where a stop was asked for.
        """
        outer, self.stage = self.stage, stage
        self.check()
        began = time.perf_counter()
        self._within.append(0.0)
        try:
            yield
        except TrialFailed as error:
            if error.failure.kind is FailureKind.INTERRUPTED:
                self.check()  # who asked says more than what was broken off
            raise
        else:
            self.stage = outer if self._within[1:] else stage
        finally:
            took = time.perf_counter() - began
            self.seconds[stage] = self.seconds.get(stage, 0.0) + took - self._within.pop()
            if self._within:
                self._within[-1] += took

    def check(self) -> None:
        """Raise `TrialFailed` if somebody asked the trial to stop, or its time is over."""
        if reason := self.stop():
            raise TrialFailed(Failure(FailureKind.INTERRUPTED, self.stage, reason))
        if time.monotonic() > self.deadline:
            raise TrialFailed(Failure(FailureKind.TIMEOUT, self.stage, TOO_LONG))

    def rung(self, row: Row) -> bool:
        """Log what training knows; returns False when it should end."""
        self.log(row)
        return self.stop() is None and time.monotonic() <= self.deadline
