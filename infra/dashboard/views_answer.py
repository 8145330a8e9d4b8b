"""Pure: what a sweep's winner is set beside on the test split, from the runs that `prunefleet up` leaves at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prunefleet.infra.dashboard.text import number
from prunefleet.infra.dashboard.trials import Question, kept
from prunefleet.infra.hub.store.rows import RunRow, SweepRow

LABELS = {
    "dense": "dense network",
    "dense_default": "dense network, default precision",
    "uniform": "uniform pruning, nearest latency",
}


@dataclass(frozen=True)
class Line:
    """One network on test: fractions with their interval, `ratio` to the dense network, `ms` the p10 latency."""

    label: str
    run: str
    precision: str
    test: float | None
    test_lo: float | None
    test_hi: float | None
    ratio: float | None
    ratio_lo: float | None
    ratio_hi: float | None
    ms: float | None
    kept: Mapping[str, int]


def read_on_test(runs: Sequence[RunRow], asked: Question) -> bool:
    """Whether a sweep has its answer: test is read for the winner alone."""
    return asked.prunes and any(f"test_{asked.accuracy}" in run.summary for run in runs)


def controls_of(sweep: SweepRow, project_runs: Sequence[RunRow]) -> tuple[RunRow, ...]:
    """The runs of a project that are the sweep's controls."""
    return tuple(run for run in project_runs if run.job_type == "control" and run.group == sweep.name)


def answer(runs: Sequence[RunRow], controls: Sequence[RunRow], asked: Question) -> tuple[Line, ...]:
    """The winner's line, then its controls'; nothing before the sweep has its answer."""
    winners = [run for run in runs if f"test_{asked.accuracy}" in run.summary]
    if not winners:
        return ()
    order = list(LABELS)
    known = sorted(controls, key=lambda run: order.index(run.display_name) if run.display_name in order else len(order))
    beside = [_line(LABELS.get(run.display_name, run.display_name), run, asked) for run in known]
    return (_line(f"winner, {winners[-1].display_name}", winners[-1], asked), *beside)


def _own_precision(run: RunRow) -> str:
    """A run's own, where its sweep searches the precision."""
    measure = run.config.get("measure")
    return str(measure.get("precision") or "") if isinstance(measure, Mapping) else ""


def _line(label: str, run: RunRow, asked: Question) -> Line:
    said = {key: number(value) for key, value in run.summary.items()}
    return Line(
        label=label,
        run=run.name,
        precision=str(run.summary.get("precision") or asked.precision or _own_precision(run)),
        test=said.get(f"test_{asked.accuracy}"),
        test_lo=said.get("test_lo"),
        test_hi=said.get("test_hi"),
        ratio=said.get("latency_ratio"),
        ratio_lo=said.get("latency_ratio_lo"),
        ratio_hi=said.get("latency_ratio_hi"),
        ms=said.get("latency_p10_ms"),
        kept=kept(run),
    )
