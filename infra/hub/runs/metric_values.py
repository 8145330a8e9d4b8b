"""A run's metric as one number: plain, nested, or one of the aggregates that `define_metric(summary=…)` makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_AGGREGATES = ("best", "last", "mean")


def metric_value(summary: Mapping[str, Any], name: str, maximise: bool) -> float | None:
    """The metric in a summary, also by a dotted path; None where it is missing or no number."""
    found: Any = summary.get(name)
    if found is None:
        found = _nested(summary, name.split("."))
    found = aggregated(found, maximise)
    return found if isinstance(found, int | float) else None


def aggregated(value: Any, maximise: bool) -> Any:
    """Of several aggregates (`{"max": 3}`) the extremum asked for, else another one; any other value as it is."""
    if not isinstance(value, Mapping):
        return value
    return next((value[key] for key in ("max" if maximise else "min", *_AGGREGATES) if key in value), value)


def _nested(summary: Mapping[str, Any], path: list[str]) -> Any:
    place: Any = summary
    for part in path:
        place = place.get(part) if isinstance(place, Mapping) else None
    return place
