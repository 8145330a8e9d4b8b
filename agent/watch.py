"""Looks on while a trial runs: seconds by stage, rows on the way, and whether it should end."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from objective.trial import Failure, FailureKind, TrialFailed

Row = Mapping[str, float]


@dataclass
class Watch:
    """`log` takes rows of the history, `stop` says why to end or None; `stage` is the one under way or the last."""

    log: Callable[[Row], None] = lambda row: None
    stop: Callable[[], str | None] = lambda: None
    seconds: dict[str, float] = field(default_factory=dict)
    stage: str = "start"

    @contextmanager
    def during(self, stage: str) -> Iterator[None]:
        """Time a stage. Raises `TrialFailed` of kind INTERRUPTED, with the reason, where a stop was asked for."""
        self.stage = stage
        self.check()
        began = time.perf_counter()
        try:
            yield
        except TrialFailed as error:
            if error.failure.kind is FailureKind.INTERRUPTED:
                self.check()  # who asked says more than what was broken off
            raise
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began

    def check(self) -> None:
        """Raise `TrialFailed` if somebody asked the trial to stop."""
        if reason := self.stop():
            raise TrialFailed(Failure(FailureKind.INTERRUPTED, self.stage, reason))

    def rung(self, row: Row) -> bool:
        """Log what training knows; returns False when it should end."""
        self.log(row)
        return self.stop() is None
