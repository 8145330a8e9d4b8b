"""Pure: a sweep's rows → what its page says and draws. No clock, no store, no HTML."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from prunefleet.infra.dashboard.columns import Column, trial_columns
from prunefleet.infra.dashboard.text import number, percent, plain, points, score
from prunefleet.infra.dashboard.trials import (
    ANSWERED,
    Question,
    TrialRow,
    expectations,
    question,
    share_kept,
    trials,
    widths,
)
from prunefleet.infra.dashboard.views_answer import Line, answer
from prunefleet.infra.dashboard.views_hosts import HostSpeed, host_speeds
from prunefleet.infra.hub.runs.advice import Advice
from prunefleet.infra.hub.runs.roster import roster, skew
from prunefleet.infra.hub.store.rows import AgentRow, RunRow, SweepRow
from prunefleet.objective.goals.pareto import front

Chart = dict[str, object]

GONE = "gone"
OUTCOMES = ("scored", "finished", "skipped", "infeasible", "diverged", "kept_failing", "failed", "crashed", "killed")
WAITING = ("running", "pending", "preempting", "preempted")
STATE_WORDS = {
    "PENDING": "waiting for the first agent",
    "RUNNING": "running",
    "PAUSED": "paused",
    "CANCELED": "cancelled",
    "FINISHED": "finished",
}
MOST_PARAMETERS = 8
SHOWN = 300  # rows of a sweep's table
DRAWN = 1000  # points of a chart
DEEPEST_DROP = 0.10  # where the goal has no limit: the hypervolume's reference
NO_ADVICE = Advice()
DROPS_SHOWN = 4.0  # else this many times the limit, so that the points near it stand apart


@dataclass(frozen=True)
class Progress:
    """How far a sweep is: ended trials of `cap` (None: no limit), live ones, and counts per outcome."""

    ended: int
    live: int
    cap: int | None
    parts: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        """What the bar is measured against."""
        return max(self.cap or 0, self.ended + self.live, 1)


@dataclass(frozen=True)
class AgentView:
    """One agent: where it runs, when it was last heard of, what it holds, and what may be asked of it."""

    name: str
    host: str
    device: str
    state: str
    heartbeat_at: datetime
    run: TrialRow | None
    finished: int
    failed: int
    actions: tuple[str, ...]


@dataclass(frozen=True)
class SweepView:
    """Everything a sweep's page needs; a headline leaves out what is long."""

    sweep: SweepRow
    title: str
    state: str
    asked: Question
    aim: str
    progress: Progress
    best: TrialRow | None
    best_within: bool
    widths: Mapping[str, int]
    trials: tuple[TrialRow, ...] = ()
    dense: TrialRow | None = None
    columns: tuple[Column, ...] = ()
    agents: tuple[AgentView, ...] = ()
    held_hosts: tuple[str, ...] = ()
    skew: str = ""
    speeds: tuple[HostSpeed, ...] = ()
    charts: Mapping[str, Chart] = field(default_factory=dict)
    answer: tuple[Line, ...] = ()
    recommended: TrialRow | None = None
    expected: str = ""
    problem: str = ""

    @property
    def shown(self) -> tuple[TrialRow, ...]:
        """The table's trials: the newest ones, and the best."""
        newest = self.trials[-SHOWN:]
        return newest if self.best is None or self.best in newest else (self.best, *newest)

    def is_best(self, trial: TrialRow) -> bool:
        """Return whether a trial is the best one so far."""
        return self.best is not None and trial.name == self.best.name

    @property
    def live(self) -> bool:
        """Whether anything may still change."""
        return self.sweep.state in ("PENDING", "RUNNING", "PAUSED") or self.progress.live > 0


def headline(sweep: SweepRow, runs: Sequence[RunRow]) -> SweepView:
    """A sweep without its trials, agents and charts: what a line in a list and its runs' pages need."""
    asked = question(sweep)
    return _headline(sweep, asked, trials(runs, asked))


def _headline(sweep: SweepRow, asked: Question, asked_trials: Sequence[TrialRow]) -> SweepView:
    best = best_trial(asked_trials, asked)
    return SweepView(
        sweep=sweep,
        title=sweep.display_name or str(sweep.config.get("name") or sweep.name),
        state=STATE_WORDS.get(sweep.state, str(sweep.state).lower()),
        asked=asked,
        aim=aim(asked),
        progress=progress(asked_trials, cap(sweep.config)),
        best=best,
        best_within=best is not None and within(best, asked),
        widths=widths(asked_trials) if asked.prunes else {},
    )


def sweep_view(
    sweep: SweepRow,
    runs: Sequence[RunRow],
    agents: Sequence[AgentRow] = (),
    controls: Sequence[RunRow] = (),
    advice: Advice = NO_ADVICE,
    held_hosts: Sequence[str] = (),
) -> SweepView:
    """Rows of one sweep, of the control runs at its end, and what its search says → its page."""
    asked = question(sweep)
    asked_trials = trials(runs, asked)
    head = _headline(sweep, asked, asked_trials)
    return replace(
        head,
        trials=asked_trials,
        dense=next((one for one in asked_trials if one.ms is not None and one.kind == "dense"), None),
        columns=trial_columns(asked, parameters_shown(asked_trials[-SHOWN:])),
        agents=agent_views(agents, runs, asked_trials, head.live),
        held_hosts=tuple(held_hosts),
        skew=skew(runs),
        speeds=host_speeds(runs),
        charts=charts(asked_trials, asked),
        answer=answer(runs, controls, asked),
        recommended=next((one for one in asked_trials if one.name == advice.trial), None),
        expected=expectations(advice.expected),
        problem=advice.problem or "",
    )


def aim(asked: Question) -> str:
    """The goal in one sentence."""
    if asked.goal is None:
        return f"{'Maximise' if asked.maximize else 'Minimise'} {asked.metric}" if asked.metric else ""
    where = (f"on {asked.device}" if asked.device else "", f"at {asked.precision}" if asked.precision else "")
    return " ".join([_aim_of_kind(asked), *filter(None, where)])


def _aim_of_kind(asked: Question) -> str:
    goal = asked.goal
    assert goal is not None
    limits = (
        f"{goal.max_latency_ratio:g} of the dense latency" if goal.max_latency_ratio is not None else "",
        f"{goal.max_latency_ms:g} ms" if goal.max_latency_ms is not None else "",
    )
    sentences = {
        "fastest": f"Fastest, losing at most {plain(100 * (goal.max_drop or 0.0))} pt of {asked.accuracy}",
        "most_accurate": f"Best {asked.accuracy} within {' and '.join(filter(None, limits))}",
        "tradeoff": f"{asked.accuracy} × latency ratio^{goal.weight:g}",
        "pareto": f"The whole front of {asked.accuracy} against latency",
    }
    return sentences.get(goal.kind, goal.kind)


def cap(config: Mapping[str, object]) -> int | None:
    """The sweep's run_cap, if it has one."""
    value = number(config.get("run_cap"))
    return int(value) if value else None


def progress(all_trials: Sequence[TrialRow], run_cap: int | None) -> Progress:
    """Counts per outcome, ended ones first, in a fixed order."""
    counts = Counter(one.outcome if one.ended else one.state for one in all_trials)
    order = [*OUTCOMES, *sorted(set(counts) - {*OUTCOMES, *WAITING}), *WAITING]
    ended = sum(one.ended for one in all_trials)
    parts = tuple((name, counts[name]) for name in order if counts[name])
    return Progress(ended=ended, live=len(all_trials) - ended, cap=run_cap, parts=parts)


def best_trial(all_trials: Sequence[TrialRow], asked: Question) -> TrialRow | None:
    """The ended trial with the best value of the sweep's metric; the earlier one where two are equal.

    A trial of pruning must have come to its score: what it logs while it trains is not its answer.
    """
    sign = 1.0 if asked.maximize else -1.0
    ended = [one for one in all_trials if one.ended and (one.outcome in ANSWERED or not asked.prunes)]
    scored = [(sign * one.score, -one.number, one) for one in ended if one.score is not None]
    return max(scored, key=lambda entry: entry[:2])[2] if scored else None


def within(one: TrialRow, asked: Question) -> bool:
    """Whether a trial meets the goal's limits; what was not measured does not break one."""
    most = asked.max_ratio(one.baseline_ms)
    slow = most is not None and one.ratio is not None and one.ratio > most
    lost = asked.max_drop is not None and one.drop is not None and one.drop > asked.max_drop
    return not (slow or lost)


def parameters_shown(all_trials: Sequence[TrialRow]) -> tuple[str, ...]:
    """Return the parameters that differ between trials, in order of appearance, at most MOST_PARAMETERS."""
    values: dict[str, set[str]] = {}
    for one in all_trials:
        for name, value in one.parameters.items():
            values.setdefault(name, set()).add(repr(value))
    varied = [name for name, seen in values.items() if len(seen) > 1 and not name.startswith("_")]
    return tuple((varied or [name for name in values if not name.startswith("_")])[:MOST_PARAMETERS])


def agent_views(
    agents: Sequence[AgentRow], runs: Sequence[RunRow], all_trials: Sequence[TrialRow], live: bool
) -> tuple[AgentView, ...]:
    """Agents with their device (said by their runs) and the trial they hold.

    Beside a sweep that is no longer `live` one that never said good-bye is gone: nothing would tell it otherwise.
    """
    by_name = {one.name: one for one in all_trials}
    return tuple(
        AgentView(
            name=member.row.name,
            host=member.row.host,
            device=member.device,
            state=member.state if live or member.row.left else GONE,
            heartbeat_at=member.row.heartbeat_at,
            run=by_name.get(member.row.run or ""),
            finished=member.ended,
            failed=member.failed,
            actions=member.actions if live else (),
        )
        for member in roster(agents, runs)
    )


def charts(all_trials: Sequence[TrialRow], asked: Question) -> dict[str, Chart]:
    """The page's charts by name: `tradeoff` where trials were timed, `best` always."""
    drawn = {"best": best_chart(all_trials, asked)}
    if asked.prunes:
        drawn["tradeoff"] = tradeoff_chart(all_trials, asked)
    return drawn


def best_chart(all_trials: Sequence[TrialRow], asked: Question) -> Chart:
    """The metric of each ended trial, and the best so far as a line: `[number, value]` each."""
    scored = [one for one in all_trials if one.score is not None and one.ended]
    values = np.array([one.score for one in scored], dtype=float)
    running = np.maximum.accumulate(values) if asked.maximize else np.minimum.accumulate(values)
    drawn = _drawn(running)
    return {
        "metric": asked.metric,
        "points": [_scored(scored[place]) for place in drawn],
        "line": [[scored[place].number, float(running[place])] for place in drawn],
    }


def _drawn(running: NDArray[np.float64]) -> list[int]:
    """Which places of a curve are drawn: all of a short one; every so many of a long one, and where it steps."""
    every = -(-len(running) // DRAWN) or 1
    steps = np.flatnonzero(np.diff(running)) + 1
    return sorted({*range(0, len(running), every), *steps.tolist(), *([len(running) - 1] if len(running) else [])})


def _scored(one: TrialRow) -> Chart:
    return {"x": one.number, "y": one.score, "name": one.name, "title": one.title, "kind": one.kind}


def tradeoff_chart(all_trials: Sequence[TrialRow], asked: Question) -> Chart:
    """Accuracy against latency ratio: points by kind, the Pareto front, the dense accuracy and the goal's limits."""
    measured = [one for one in all_trials if one.measured]
    dense = dense_accuracy(measured)
    return {
        "metric": asked.accuracy,
        "points": [_point(one, asked) for one in measured[:: -(-len(measured) // DRAWN) or 1]],
        "front": pareto(measured),
        "dense": dense,
        "least_accuracy": None if dense is None or asked.max_drop is None else dense - asked.max_drop,
        "most_ratio": asked.max_ratio(median(one.baseline_ms for one in measured)),
        "max_drop": asked.max_drop,
        "floor": None if dense is None else dense - deepest_drop(asked),
    }


def deepest_drop(asked: Question) -> float:
    """How far below the dense accuracy the chart reaches; what lost more is drawn on its floor."""
    return DROPS_SHOWN * asked.max_drop if asked.max_drop else DEEPEST_DROP


def dense_accuracy(measured: Sequence[TrialRow]) -> float | None:
    """The dense network's accuracy as any trial knows it: its own plus its drop (the median of them)."""
    return median(one.accuracy + one.drop for one in measured if one.accuracy is not None and one.drop is not None)


def median(values: Iterable[float | None]) -> float | None:
    """The median of the values that are known."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def pareto(measured: Sequence[TrialRow]) -> list[list[float]]:
    """The non-dominated `[ratio, accuracy]`, fastest first."""
    if not measured:
        return []
    accuracy = np.array([one.accuracy for one in measured], dtype=float)
    ratios = np.array([one.ratio for one in measured], dtype=float)
    chosen = front(np.column_stack([1.0 - accuracy, ratios]))
    return sorted([float(ratios[i]), float(accuracy[i])] for i in chosen)


def _point(one: TrialRow, asked: Question) -> Chart:
    return {
        "name": one.name,
        "title": one.title,
        "number": one.number,
        "kind": one.kind,
        "x": one.ratio,
        "lo": one.ratio_lo,
        "hi": one.ratio_hi,
        "y": one.accuracy,
        "within": within(one, asked),
        "text": [
            f"{asked.accuracy} {percent(one.accuracy)}, lost {points(one.drop)}",
            f"score {score(one.score)}",
        ],
    }


def compact(one: TrialRow, full: Mapping[str, int]) -> tuple[tuple[str, int, float], ...]:
    """Kept channels for one cell: group, channels, share of the dense width 0..1."""
    return tuple((group, channels, channels / max(full.get(group, 0), 1)) for group, channels in one.kept.items())


def kept_text(one: TrialRow, full: Mapping[str, int]) -> str:
    """Kept channels in words: each group's where they are few, else the share; the precision where that is searched."""
    if not one.kept:
        return ""
    searched = one.parameters.get("measure.precision") if not one.asked.precision else None
    precision = f" {searched}" if searched else ""
    if len(one.kept) <= 8:
        return "·".join(str(channels) for channels in one.kept.values()) + precision
    return f"{percent(share_kept(one.kept, full), 0)} of {len(one.kept)} groups{precision}"
