"""The columns of a sweep's table of trials: a new one is an entry of `trial_columns`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prunefleet.infra.dashboard import text
from prunefleet.infra.dashboard.trials import Question, TrialRow


@dataclass(frozen=True)
class Column:
    """One column: what its head says, what it sorts by, and what a cell shows.

    `value` is what the browser sorts by; None for a column that cannot be sorted. A cell shows `text`, or, where that
    is None, what the macro `name` of `_trial_cells.html` draws. `number` columns are aligned to the right.
    """

    name: str
    heading: str
    value: Callable[[TrialRow], object] | None
    text: Callable[[TrialRow], str] | None = None
    number: bool = False

    def sort_value(self, trial: TrialRow) -> object:
        """Return what the browser sorts a cell by; empty where the trial has not said it."""
        found = None if self.value is None else self.value(trial)
        return "" if found is None else found


def trial_columns(asked: Question, parameters: Sequence[str]) -> tuple[Column, ...]:
    """Return the table's columns from left to right.

    `parameters` are the searched parameters to show, for a sweep that does not prune.
    """
    metric = asked.metric or "metric"
    return (
        Column("number", "#", lambda one: one.number, lambda one: str(one.number), number=True),
        Column("title", "Trial", lambda one: one.title),
        Column("outcome", "Outcome", lambda one: one.outcome),
        Column("score", metric, lambda one: one.score, lambda one: text.score(one.score), number=True),
        *(_of_pruning(asked) if asked.prunes else map(_parameter, range(1, 1 + len(parameters)), parameters)),
        Column("host", "host", lambda one: one.host, lambda one: one.host or text.NOTHING),
        Column("seconds", "took", lambda one: one.seconds, lambda one: text.seconds(one.seconds), number=True),
    )


def _of_pruning(asked: Question) -> tuple[Column, ...]:
    accuracy = f"val {asked.accuracy}"
    return (
        Column("accuracy", accuracy, lambda one: one.accuracy, lambda one: text.percent(one.accuracy), number=True),
        Column("drop", "drop", lambda one: one.drop, lambda one: text.points(one.drop), number=True),
        Column("ratio", "latency ratio", lambda one: one.ratio, number=True),
        Column("ms", "p10", lambda one: one.ms, lambda one: text.milliseconds(one.ms), number=True),
        Column("kept", "kept channels", None),
        Column("kind", "why", lambda one: one.kind),
    )


def _parameter(place: int, name: str) -> Column:
    def value(one: TrialRow) -> object:
        return one.parameters.get(name)

    return Column(f"p{place}", name, value, lambda one: text.shown(value(one)), number=True)
