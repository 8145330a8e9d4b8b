"""The circuit breaker of a host: a sick host hands back trial after trial, so it pauses and then tries a single one."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from prunefleet.objective.host_outcomes import HostOutcome

FAILURES = 3  # in a row
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 900.0


class Allowed(Enum):
    """How many trials may run on the host now."""

    ALL = "all"
    ONE = "one"
    NONE = "none"


@dataclass
class Breaker:
    """Learns how trials ended; a candidate's failure is an answer, and any answer says that the host is well."""

    in_a_row: int = 0
    pause: float = FIRST_PAUSE
    until: float | None = None
    """Until when nothing runs; None while all may run. Behind it a single trial is tried."""

    def learn(self, outcomes: Iterable[HostOutcome], now: float) -> str | None:
        """Take in what ended; returns what to tell people, where the host pauses or goes on."""
        told = None
        for outcome in outcomes:
            told = (self._fails(outcome, now) if outcome.blames_host else self._answers()) or told
        return told

    def _answers(self) -> str | None:
        open_before = self.until is not None
        self.in_a_row, self.pause, self.until = 0, FIRST_PAUSE, None
        return "A trial came to an answer: this host's agents go on." if open_before else None

    def _fails(self, outcome: HostOutcome, now: float) -> str | None:
        self.in_a_row += 1
        trying = self.until is not None and now >= self.until
        if self.until is None and self.in_a_row < FAILURES:
            return None
        if self.until is not None and not trying:  # one that was under way when the pause began
            return None
        if trying:
            self.pause = min(2 * self.pause, LONGEST_PAUSE)
        self.until = now + self.pause
        assert outcome.failure is not None
        why = f"{outcome.failure.stage}: {outcome.failure.kind.value}: {outcome.failure.message}"
        which = "the trial that was tried failed too" if trying else f"{self.in_a_row} trials in a row failed here"
        paused = f"This host pauses for {self.pause / 60:g} min: {which}, the last in {why}."
        return f"{paused} `prunefleet doctor` looks for the cause; one trial is tried then."

    def allowed(self, now: float) -> Allowed:
        """How many trials may run."""
        if self.until is None:
            return Allowed.ALL
        return Allowed.ONE if now >= self.until else Allowed.NONE
