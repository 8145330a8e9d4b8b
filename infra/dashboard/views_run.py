"""Pure: a run's rows → what its page says and draws."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prunefleet.infra.dashboard.text import (
    amount,
    console_line,
    flat,
    interval,
    milliseconds,
    number,
    plain,
    ratio,
    shown,
)
from prunefleet.infra.dashboard.trials import Question, TrialRow, kept, trial
from prunefleet.infra.hub.store.rows import RunRow

MOST_POINTS = 1000
MOST_CHARTS = 24
STAGE_PREFIX = "seconds_"


@dataclass(frozen=True)
class GroupBar:
    """A layer group: channels kept of `width`, and the ratio that was asked for."""

    name: str
    kept: int
    width: int
    ratio: float | None

    @property
    def share(self) -> float:
        """Kept of all, 0..1."""
        return self.kept / self.width if self.width else 0.0


@dataclass(frozen=True)
class FailureView:
    """Why a run gave no measurement."""

    kind: str
    stage: str
    message: str


@dataclass(frozen=True)
class RunView:
    """Everything a run's page needs."""

    run: RunRow
    trial: TrialRow
    curves: tuple[dict[str, object], ...]
    groups: tuple[GroupBar, ...]
    latency: tuple[tuple[str, str, str], ...]
    facts: tuple[tuple[str, str], ...]
    stages: tuple[tuple[str, float], ...]
    failure: FailureView | None
    config: tuple[tuple[str, str], ...]
    summary: tuple[tuple[str, str], ...]
    log: tuple[str, ...]

    @property
    def live(self) -> bool:
        """Whether anything may still change."""
        return not self.trial.ended

    @property
    def seconds(self) -> float:
        """All stages together."""
        return sum(value for _, value in self.stages)

    @property
    def longest(self) -> float:
        """The longest stage, what the others are drawn against; never 0."""
        return max((value for _, value in self.stages), default=0.0) or 1.0


def run_view(
    run: RunRow,
    asked: Question,
    *,
    number_in_sweep: int = 0,
    history: Sequence[Mapping[str, object]] = (),
    console: Sequence[str] = (),
    full: Mapping[str, int] | None = None,
) -> RunView:
    """Rows of one run → its page. `full` is the dense width per group where the sweep knows it."""
    return RunView(
        run=run,
        trial=trial(run, number_in_sweep, asked),
        curves=curves(history),
        groups=group_bars(run, full or {}),
        latency=latency(run.summary),
        facts=facts(run.summary),
        stages=stages(run.summary),
        failure=failure(run.summary),
        config=table(run.config),
        summary=table(run.summary),
        log=tuple(console_line(line) for line in console),
    )


def curves(history: Sequence[Mapping[str, object]]) -> tuple[dict[str, object], ...]:
    """One chart per numeric metric of the history: `[step, value]`, at most MOST_POINTS of them, ends kept."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for index, row in enumerate(history):
        step = number(row.get("_step"))
        for name, value in flat(row):
            if not name.startswith("_") and (y := number(value)) is not None:
                lines.setdefault(name, []).append((index if step is None else step, y))
    return tuple({"metric": name, "points": thin(found)} for name, found in list(lines.items())[:MOST_CHARTS])


def thin(found: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """Every n-th point, so that at most `most` remain, and always the last."""
    every = -(-len(found) // most) or 1
    kept_points = list(found[::every])
    return kept_points if not found or kept_points[-1] == found[-1] else [*kept_points[: most - 1], found[-1]]


def group_bars(run: RunRow, full: Mapping[str, int]) -> tuple[GroupBar, ...]:
    """Kept channels against the dense width, which comes from the sweep or else from kept and ratio."""
    asked = run.config.get("ratio")
    ratios = {name: number(value) for name, value in asked.items()} if isinstance(asked, Mapping) else {}
    return tuple(
        GroupBar(name, channels, _width(channels, ratios.get(name), full.get(name, 0)), ratios.get(name))
        for name, channels in kept(run).items()
    )


def _width(channels: int, asked: float | None, known: int) -> int:
    implied = round(channels / (1 - asked)) if asked is not None and 0 <= asked < 1 else 0
    return max(known or implied, channels)


def latency(summary: Mapping[str, object]) -> tuple[tuple[str, str, str], ...]:
    """Lines of the latency table: what, the candidate, the dense network beside it."""
    lines = []
    for what in ("p10", "p50", "p90", "p99"):
        own, dense = number(summary.get(f"latency_{what}_ms")), number(summary.get(f"baseline_{what}_ms"))
        if own is not None:
            lines.append((what, milliseconds(own), milliseconds(dense)))
    if (value := number(summary.get("latency_ratio"))) is not None:
        ends = interval(number(summary.get("latency_ratio_lo")), number(summary.get("latency_ratio_hi")))
        lines.append(("ratio of the p10", f"{ratio(value)} ({ends})" if ends else ratio(value), "1"))
    lines += [(f"ratio on {name}", own, "1") for name, own in _ratios(summary.get("devices"))]
    return tuple(lines)


def _ratios(devices: object) -> Iterator[tuple[str, str]]:
    """The latency ratio on each device, where there are several; the lines above are the slowest one's."""
    for name, told in sorted(devices.items()) if isinstance(devices, Mapping) else ():
        if isinstance(told, Mapping) and (value := number(told.get("latency_ratio"))) is not None:
            yield str(name), ratio(value)


def facts(summary: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Size and speed figures, those that are known."""
    wanted = {
        "params": "parameters",
        "macs": "MACs",
        "size_bytes": "size",
        "throughput_fps": "throughput",
        "energy_mj": "energy",
    }
    return tuple((text, _fact(key, value)) for key, text in wanted.items() if (value := number(summary.get(key))))


def _fact(key: str, value: float) -> str:
    units = {"size_bytes": "B"}
    suffix = {"throughput_fps": " images/s", "energy_mj": " mJ"}
    return f"{plain(value, 3) if key == 'energy_mj' else amount(value, units.get(key, ''))}{suffix.get(key, '')}"


def stages(summary: Mapping[str, object]) -> tuple[tuple[str, float], ...]:
    """Seconds per stage, as the trial reported them."""
    found = ((key.removeprefix(STAGE_PREFIX), number(value)) for key, value in summary.items() if _is_stage(key))
    return tuple((name, value) for name, value in found if value is not None and value >= 0)


def _is_stage(key: str) -> bool:
    return key.startswith(STAGE_PREFIX) and key != f"{STAGE_PREFIX}total"


def failure(summary: Mapping[str, object]) -> FailureView | None:
    """The failure that a trial reported, if it did."""
    if not summary.get("failure_kind"):
        return None
    kind, stage, message = (str(summary.get(f"failure_{part}") or "") for part in ("kind", "stage", "message"))
    return FailureView(kind, stage, message)


def table(values: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Nested values as sorted lines of name and text, W&B's own bookkeeping left out."""
    return tuple(sorted((name, shown(value)) for name, value in flat(values) if not name.startswith("_")))
