"""A sweep's runs in the vocabulary of a trial: what was tried, what came of it, and why it was tried."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from prunefleet.infra.dashboard.text import flat, number, points, ratio
from prunefleet.infra.hub.store.lazy import lazy
from prunefleet.infra.hub.store.rows import RunRow, SweepRow
from prunefleet.infra.hub.store.states import ENDED_STATES
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.profiles.space import GroupSpec, Space

KINDS = ("replicate", "dense", "uniform", "greedy", "exploit", "explore", "warm", "random", "grid")
ANSWERED = frozenset({"scored", "finished"})
QUIET_REASONS = frozenset({"kind", "acquisition"})

LONGEST_LADDER = 4096  # rungs; no layer has more channels than that on any grid


@dataclass(frozen=True)
class Question:
    """What a sweep asks: its metric, direction, goal and whether it prunes at all."""

    metric: str
    maximize: bool
    prunes: bool
    accuracy: str
    goal: Goal | None
    precision: str
    device: str

    @property
    def max_drop(self) -> float | None:
        """The goal's limit on the accuracy lost, a fraction."""
        return self.goal.max_drop if self.goal and self.goal.kind == "fastest" else None

    def max_ratio(self, baseline_ms: float | None) -> float | None:
        """The goal's limit on the latency ratio; one in milliseconds is read against the dense median."""
        if self.goal is None or self.goal.kind != "most_accurate":
            return None
        in_ms = self.goal.max_latency_ms
        limits = [self.goal.max_latency_ratio, in_ms / baseline_ms if in_ms and baseline_ms else None]
        return min((limit for limit in limits if limit is not None), default=None)


def _number(name: str) -> lazy[float | None]:
    """A number of the run's summary."""
    return lazy(lambda one: number(one.row.summary.get(name)))


@dataclass(frozen=True)
class TrialRow:
    """One run of a sweep; what it has not said yet is None or empty.

    Accuracy and drop are fractions, `ratio` is candidate to dense, `ms` the p10 latency, `baseline_ms` the dense
    network's median beside it. Each is read when it is asked for: of a long sweep most are never shown.
    """

    number: int
    row: RunRow
    asked: Question
    told_kind: str | None = None

    @lazy
    def kind(self) -> str:
        """Which sort of trial it is."""
        return kind(_why(self.row)) if self.told_kind is None else self.told_kind

    @property
    def name(self) -> str:
        """The run's id."""
        return self.row.name

    @property
    def title(self) -> str:
        """What people call it."""
        return self.row.display_name or self.row.name

    @property
    def state(self) -> str:
        """The run's state."""
        return self.row.state.value

    @property
    def host(self) -> str:
        """Where it ran."""
        return self.row.host or ""

    @property
    def retries(self) -> int:
        """How often its host failed it."""
        return self.row.retries

    @property
    def created_at(self) -> datetime:
        """When it was made."""
        return self.row.created_at

    @property
    def finished_at(self) -> datetime | None:
        """When it ended."""
        return self.row.finished_at

    @lazy
    def outcome(self) -> str:
        """What it says came of it, else its state."""
        return str(self.row.summary.get("outcome") or self.state)

    @lazy
    def reason(self) -> str:
        """Why the controller chose it."""
        return reason(_why(self.row))

    @lazy
    def kept(self) -> Mapping[str, int]:
        """Channels kept per group."""
        return kept(self.row)

    @lazy
    def parameters(self) -> Mapping[str, object]:
        """Its config, with dotted names."""
        return dict(flat(self.row.config))

    @lazy
    def score(self) -> float | None:
        """The sweep's metric."""
        return number(self.row.summary.get(self.asked.metric))

    @lazy
    def accuracy(self) -> float | None:
        """The objective's metric on validation."""
        return number(self.row.summary.get(f"val_{self.asked.accuracy}"))

    drop = _number("metric_drop")
    ratio = _number("latency_ratio")
    ratio_lo = _number("latency_ratio_lo")
    ratio_hi = _number("latency_ratio_hi")
    ms = _number("latency_p10_ms")
    baseline_ms = _number("baseline_p50_ms")

    @property
    def ended(self) -> bool:
        """Whether the run will say no more."""
        return self.row.state in ENDED_STATES

    @property
    def measured(self) -> bool:
        """Whether it ended with an accuracy and a latency; what a trial logs on its way is not its answer."""
        return self.outcome in ANSWERED and self.ended and self.accuracy is not None and self.ratio is not None

    @property
    def seconds(self) -> float | None:
        """From creation to end."""
        return (self.finished_at - self.created_at).total_seconds() if self.finished_at else None


def question(sweep: SweepRow) -> Question:
    """Read what a sweep asks from its configuration; a foreign or broken one is a sweep that does not prune."""
    parameters = _mapping(sweep.config.get("parameters"))
    metric = _mapping(sweep.config.get("metric"))
    objective = constants(_mapping(parameters.get("objective")))
    measure = constants(_mapping(parameters.get("measure")))
    return Question(
        metric=str(metric.get("name") or ""),
        maximize=metric.get("goal", "minimize") == "maximize",
        prunes="ratio" in parameters or str(sweep.config.get("program", "")).endswith("prunefleet"),
        accuracy=str(objective.get("metric", "top1")),
        goal=_goal(objective),
        precision=str(measure.get("precision", "")),
        device=_named(measure.get("device", "")),
    )


def _named(device: object) -> str:
    """A device's name; of several, all of them."""
    return " and ".join(map(str, device)) if isinstance(device, list) else str(device)


def constants(block: Mapping[str, object]) -> dict[str, object]:
    """The plain values of a nested `parameters` block, without the parameters that are searched."""
    entries = _mapping(block.get("parameters"))
    return {key: _mapping(entry)["value"] for key, entry in entries.items() if "value" in _mapping(entry)}


def trials(rows: Sequence[RunRow], asked: Question) -> tuple[TrialRow, ...]:
    """Runs in order of creation → trials numbered from 1, warm points told apart by their kept channels."""
    found = tuple(trial(row, index, asked) for index, row in enumerate(rows, start=1))
    if not asked.prunes or not any(one.kind == "warm" for one in found):
        return found
    full = widths(found)
    ladder = uniform_ladder(full, [one.kept for one in found])
    told = ((one, warm_kind(one.kept, full, ladder) if one.kind == "warm" else None) for one in found)
    return tuple(replace(one, told_kind=warm) if warm else one for one, warm in told)


def trial(row: RunRow, index: int, asked: Question) -> TrialRow:
    """One run in the vocabulary of a trial."""
    return TrialRow(index, row, asked)


def _why(row: RunRow) -> object:
    return row.why if row.why is not None else row.summary.get("why")


def kept(row: RunRow) -> dict[str, int]:
    """Channels kept per group, from the run's config or summary; empty until the run says so.

    By name: clients send mappings in any order, another one for each run, and rows are read beside each other.
    """
    found = _mapping(row.config.get("kept")) or _mapping(row.summary.get("kept"))
    counts = {name: number(found[name]) for name in sorted(found)}
    return {key: int(value) for key, value in counts.items() if value is not None and value >= 0}


def kind(why: object) -> str:
    """Which sort of trial the controller meant: the first of KINDS that its reason names, or "other"."""
    said = _said(why)
    texts = [value for _, value in said if isinstance(value, str)]
    words = {word for text in texts for word in text.lower().replace("-", " ").split()}
    words |= {key for key, value in said if value is True}
    return next((name for name in KINDS if name in words), "other")


def reason(why: object) -> str:
    """The controller's reason on one line."""
    if isinstance(why, str):
        return why
    said = why if isinstance(why, Mapping) else {}
    parts = (_expectation(str(key), value) for key, value in said.items() if key not in QUIET_REASONS)
    return ", ".join(part for part in parts if part)


def widths(all_trials: Sequence[TrialRow]) -> dict[str, int]:
    """Channels per group of the dense network: the most that any trial kept."""
    most: dict[str, int] = {}
    for one in all_trials:
        for group, channels in one.kept.items():
            most[group] = max(channels, most.get(group, 0))
    return dict(sorted(most.items()))


def uniform_ladder(full: Mapping[str, int], seen: Iterable[Mapping[str, int]]) -> tuple[dict[str, int], ...]:
    """What uniform pruning gives on the grid that the kept channels seen lie on (their common divisor)."""
    step = math.gcd(*full.values(), *(channels for each in seen for channels in each.values()))
    if not full or step < 1 or max(full.values()) // step > LONGEST_LADDER:
        return ()
    try:
        return Space(tuple(GroupSpec(name, width, step) for name, width in full.items())).uniform_ladder()
    except BadInput:  # any client may log `kept`; what no network has is no ladder
        return ()


def warm_kind(channels: Mapping[str, int], full: Mapping[str, int], ladder: Sequence[Mapping[str, int]]) -> str:
    """A warm point is the dense network, uniform pruning on the grid, or greedy from the profile's curves."""
    if not channels:
        return "warm"
    if dict(channels) == dict(full):
        return "dense"
    return "uniform" if any(dict(channels) == dict(rung) for rung in ladder) else "greedy"


def share_kept(channels: Mapping[str, int], full: Mapping[str, int]) -> float | None:
    """Kept channels over all channels, 0..1; None where nothing is known."""
    total = sum(full.get(group, 0) for group in channels)
    return sum(channels.values()) / total if total else None


def _goal(objective: Mapping[str, object]) -> Goal | None:
    try:
        return Goal.from_parameters(objective) if objective else None
    except (BadInput, TypeError, ValueError):
        return None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _said(why: object) -> list[tuple[str, object]]:
    if isinstance(why, str):
        return [("", why)]
    return list(flat(why)) if isinstance(why, Mapping) else []


def expectations(expected: Mapping[str, object]) -> str:
    """What the models expect of a trial, in words; nothing where they said nothing."""
    return ", ".join(_expectation(name, value) for name, value in sorted(expected.items()))


def _expectation(name: str, value: object) -> str:
    """One part of the controller's reason; `devices` has a prediction for each."""
    if name == "devices" and isinstance(value, Mapping):
        return ", ".join(_predicted(f"latency ratio on {device}", ratio, told) for device, told in value.items())
    name = name.replace("_", " ")
    return _predicted(name, points if name.endswith("drop") else ratio, value)


def _predicted(name: str, text: Callable[[float | None], str], value: object) -> str:
    """`{"expected", "lo", "hi"}` is a prediction with its interval; anything else is told as it is."""
    if not isinstance(value, Mapping):
        return f"{name} {_short(value)}"
    middle, low, high = (number(value.get(key)) for key in ("expected", "lo", "hi"))
    if middle is None:
        return ", ".join(f"{name} {key} {_short(one)}" for key, one in flat(value))
    return f"expected {name} {text(middle)}" + (
        "" if low is None or high is None else f" ({text(low)} to {text(high)})"
    )


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
