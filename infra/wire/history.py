"""What a run logged, in the shapes the client reads: pages by step, samples, console lines."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from prunefleet.infra.hub.store.errors import Invalid
from prunefleet.infra.hub.store.lines import Stream, parse
from prunefleet.infra.hub.store.rows import RunRow
from prunefleet.infra.wire.graphql import paging
from prunefleet.infra.wire.graphql.execute import Info

T = TypeVar("T")
SAMPLES = 500
LOG_PAGE = 10_000
END = 1 << 62


def page(
    run: RunRow,
    info: Info,
    minStep: int | None = None,  # noqa: N803
    maxStep: int | None = None,  # noqa: N803
    samples: int | None = None,
) -> list[str]:
    """Rows as JSON texts: those with minStep <= _step < maxStep, or `samples` of them all, evenly spread."""
    hub = info.context.hub
    if minStep is None and maxStep is None:
        return spread(hub.run_lines.texts(run.id, Stream.HISTORY), samples or SAMPLES)
    return hub.run_lines.steps(run.id, minStep or 0, END if maxStep is None else maxStep, samples or SAMPLES)


def events(run: RunRow, info: Info, samples: int | None = None) -> list[str]:
    """System metrics as JSON texts, evenly spread."""
    return spread(info.context.hub.run_lines.texts(run.id, Stream.EVENTS), samples or SAMPLES)


def sampled(run: RunRow, info: Info, specs: Sequence[str]) -> list[list[dict[str, Any]]]:
    """For each spec `{keys, samples, minStep, maxStep}` the rows that have all its keys, with these keys alone.

    Clients page with it, and do not agree whether maxStep belongs to a page: newer ones mean so, and ask for as many
    samples as that page has steps; older ones mean the step after the page.
    """
    wanted = [_spec(text) for text in specs]
    if not any(spec.get("keys") for spec in wanted):
        return [[] for _ in wanted]
    rows = [parse(text) for text in info.context.hub.run_lines.texts(run.id, Stream.HISTORY)]
    return [_sample(rows, spec) for spec in wanted]


def unexported(run: RunRow, info: Info, liveKeys: Sequence[str]) -> dict[str, Any]:  # noqa: N803
    """W&B's history as files of columns: none here. From the first live row on, the client reads pages."""
    first = [parse(text) for text in info.context.hub.run_lines.steps(run.id, -END, END, 1)]
    return {"parquetUrls": [], "liveData": [{key: finite(row[key]) for key in liveKeys if key in row} for row in first]}


def keys(run: RunRow, info: Info) -> dict[str, Any] | None:
    """Which keys the history has (as the last row and the summary show) and its last step; None where nothing is."""
    if not run.history_lines:
        return None
    hub = info.context.hub
    last = parse(hub.run_lines.tail(run.id, Stream.HISTORY, 1)[-1][1])
    found = {
        key: {
            "typeCounts": [{"type": _kind(value), "count": run.history_lines}],
            "monotonic": False,
            "previousValue": finite(value),
        }
        for key, value in _flat({**run.summary, **last}).items()
        if not key.startswith("_wandb")
    }
    return {"keys": found, "sets": [], "lastStep": hub.run_lines.last_step(run.id)}


def system_metrics(run: RunRow, info: Info) -> str:
    """The last row of system metrics."""
    last = info.context.hub.run_lines.tail(run.id, Stream.EVENTS, 1)
    row = parse(last[-1][1]) if last else {}
    return json.dumps({key: value for key, value in row.items() if not key.startswith("_")})


def counter(stream: Stream) -> Callable[[RunRow, Info], int]:
    """A resolver for the number of lines of a stream."""
    return lambda run, info: info.context.hub.run_lines.count(run.id, stream)


def tail_of(stream: Stream) -> Callable[[RunRow, Info], str]:
    """A resolver for the last line of a stream: a JSON list of JSON texts, as a text."""
    return lambda run, info: json.dumps([text for _n, text in info.context.hub.run_lines.tail(run.id, stream, 1)])


def log_lines(
    run: RunRow,
    info: Info,
    first: int | None = None,
    after: str | None = None,
    last: int | None = None,
    **_unused: object,
) -> dict[str, Any]:
    """Console lines: the last ones, or a page after a cursor."""
    hub = info.context.hub
    if last is not None:
        return paging.everything(
            [_log_line(*line) for line in hub.run_lines.tail(run.id, Stream.CONSOLE, min(last, LOG_PAGE))]
        )
    lines = [_log_line(number, text) for number, text in hub.run_lines.numbered(run.id, Stream.CONSOLE)]
    return paging.connection(lines, first, after)


def spread(rows: Sequence[T], count: int) -> list[T]:
    """`count` of the rows, evenly spread, first and last among them; all where there are no more than that."""
    if len(rows) <= max(count, 1):
        return list(rows)
    if count == 1:
        return [rows[-1]]
    return [rows[round(i * (len(rows) - 1) / (count - 1))] for i in range(count)]


def finite(value: Any) -> Any:
    """JSON has no NaN or infinity; W&B writes them as texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list) else value


def _sample(rows: Sequence[dict[str, Any]], spec: dict[str, Any]) -> list[dict[str, Any]]:
    keys = spec.get("keys") or []
    low, high, samples = (_whole(spec, name) for name in ("minStep", "maxStep", "samples"))
    if not keys:
        return []
    end = high + 1 if high is not None and samples == high - (low or 0) + 1 else high
    within = (row if row.keys() >= set(keys) else _flat(row) for row in rows if _within(row.get("_step"), low, end))
    fit = [row for row in within if row.keys() >= set(keys)]
    return [{key: finite(row[key]) for key in keys} for row in spread(fit, samples or SAMPLES)]


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A row with `{"a": {"b": 1}}` as `a.b`, as W&B names nested metrics; media (they say their _type) stay whole."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        nested = isinstance(value, dict) and "_type" not in value
        found |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


def _within(step: Any, low: int | None, end: int | None) -> bool:
    if low is None and end is None:
        return True
    return isinstance(step, int | float) and (low is None or step >= low) and (end is None or step < end)


def _whole(spec: dict[str, Any], name: str) -> int | None:
    value = spec.get(name)
    if value is not None and not isinstance(value, int):
        raise Invalid(f"specs: {name} got {type(value).__name__}; send a whole number")
    return value


def _spec(text: str) -> dict[str, Any]:
    try:
        spec = json.loads(text)
    except ValueError as error:
        raise Invalid(f"specs: not JSON ({error})") from error
    if not isinstance(spec, dict):
        raise Invalid(f"specs: got {type(spec).__name__}; send JSON objects")
    if not isinstance(keys := spec.get("keys") or [], list) or not all(isinstance(key, str) for key in keys):
        raise Invalid("specs: keys got something else; send a list of texts")
    return spec


def _kind(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return "number"
    if isinstance(value, dict):
        return str(value.get("_type", "map"))
    return "string" if isinstance(value, str) else "list" if isinstance(value, list) else "nil"


_STAMPED = re.compile(
    r"(?P<level>[A-Z]+ )?(?P<timestamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z?) (?P<line>.*)", re.S
)


def _log_line(number: int, text: str) -> dict[str, Any]:
    """A console line as the client stores it: perhaps a level, a time in UTC, and what was printed."""
    found = _STAMPED.fullmatch(text)
    if found is None:
        return {"number": number, "timestamp": None, "level": None, "label": None, "line": text}
    level = (found["level"] or "").strip().lower() or None
    return {"number": number, "timestamp": found["timestamp"], "level": level, "label": None, "line": found["line"]}
