"""W&B's filters (MongoDB's operators over columns) and orders, applied to rows. Pure.

`read(row, name)` gives a row's column; for runs that is `column`, with name, state, sweep, display_name, tags, group,
job_type, host, user, notes, created_at, updated_at, heartbeat_at, duration, `config.X` (also `config.X.value`) and
`summary_metrics.X`, with further dots for nested values. Camel case is understood.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from operator import ge, gt, le, lt
from typing import Any, TypeVar

from prunefleet.infra.hub.runs.metric_values import aggregated
from prunefleet.infra.hub.store.errors import Invalid
from prunefleet.infra.hub.store.rows import RunRow

T = TypeVar("T")
Test = Callable[[Any], bool]
Read = Callable[[Any, str], Any]
MAX_REGEX = 200  # characters

_COLUMNS: Mapping[str, Callable[[RunRow], Any]] = {
    "name": lambda run: run.name,
    "state": lambda run: run.state.value,
    "sweep": lambda run: run.sweep,
    "display_name": lambda run: run.display_name,
    "tags": lambda run: list(run.tags),
    "group": lambda run: run.group,
    "job_type": lambda run: run.job_type,
    "host": lambda run: run.host,
    "user": lambda run: run.user,
    "username": lambda run: run.user,
    "notes": lambda run: run.notes,
    "created_at": lambda run: run.created_at,
    "updated_at": lambda run: run.heartbeat_at or run.created_at,
    "heartbeat_at": lambda run: run.heartbeat_at,
    "duration": lambda run: _seconds(run),
}


@lru_cache(maxsize=1024)
def snake(name: str) -> str:
    """`createdAt` → `created_at`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def parse(text: str | None) -> Mapping[str, Any]:
    """The filter document of a request; none means every run. Raises `Invalid`."""
    try:
        document = json.loads(text) if text else {}
    except ValueError as error:
        raise Invalid(f"filters: not JSON ({error})") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise Invalid(f"filters: got {type(document).__name__}; send a JSON object")
    return document


def column(run: RunRow, name: str) -> Any:
    """The value of a run's column or of a dotted path into config or summary; None where there is none."""
    head, _, path = name.partition(".")
    if path and head == "config":
        return _walk(run.config, path.split("."))
    if path and head in ("summary_metrics", "summaryMetrics"):
        return _walk(run.summary, path.split("."))
    known = _COLUMNS.get(snake(name))
    return known(run) if known else None


@dataclass(frozen=True)
class Narrowing:
    """The part of a filter that only says which texts some columns may have; `whole`: there is no other part."""

    allowed: Mapping[str, Sequence[str]]
    whole: bool


def narrow(document: Mapping[str, Any], columns: Collection[str]) -> Narrowing:
    """What of a filter a database can decide by itself, for these columns: equality, `$in`, and `$and` of such."""
    allowed: dict[str, Sequence[str]] = {}
    whole = True
    for key, value in _conditions(document):
        name, texts = snake(key), _texts(value)
        if name not in columns or texts is None:
            whole = False
        else:
            allowed[name] = [text for text in texts if text in allowed.get(name, texts)]
    return Narrowing(allowed, whole)


def creation(text: str | None) -> bool | None:
    """Whether an order is by creation alone: False for oldest first, True for newest first, None for another one."""
    name = (text or "created_at").strip()
    known = snake(name.lstrip("+-")) == "created_at"
    return name.startswith("-") if known else None


def matcher(document: Mapping[str, Any], read: Read = column) -> Test:
    """The filter as a predicate over rows. Raises `Invalid` for an operator that is not served."""
    tests = [_clause(key, value, read) for key, value in document.items()]
    return lambda row: all(test(row) for test in tests)


def order(rows: Iterable[T], text: str | None, read: Read = column) -> list[T]:
    """Rows sorted by `+created_at`, `-summary_metrics.loss` or several of these, comma separated; `+` is the default.

    Rows that lack the key come last, whichever the direction. A metric that `define_metric(summary=…)` aggregates
    counts by its extremum in that direction.
    """
    found = list(rows)
    for term in reversed([part.strip() for part in (text or "").split(",") if part.strip()]):
        descending, name = term.startswith("-"), term.lstrip("+-")
        have = [row for row in found if read(row, name) is not None]
        have.sort(key=lambda row: _rank(aggregated(read(row, name), descending)), reverse=descending)
        found = have + [row for row in found if read(row, name) is None]
    return found


def _conditions(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if key == "$and" and isinstance(value, list) and all(isinstance(part, Mapping) for part in value):
            for part in value:
                yield from _conditions(part)
        else:
            yield key, value


def _texts(value: Any) -> list[str] | None:
    """The texts that a condition allows, None where it says something else."""
    if isinstance(value, Mapping) and len(value) == 1:
        value = value["$eq"] if "$eq" in value else value.get("$in")
    found = value if isinstance(value, list) else [value]
    return found if found and all(isinstance(each, str) for each in found) else None


def _clause(key: str, value: Any, read: Read) -> Test:
    if key in ("$and", "$or", "$nor"):
        parts = [_nested(key, part, read) for part in _list(key, value)]
        join = all if key == "$and" else any
        return _negate(lambda row: join(part(row) for part in parts), key == "$nor")
    if key == "$not":
        return _negate(_nested(key, value, read), True)
    if key.startswith("$"):
        raise Invalid(f"filters: got {key!r}; at this place use $and, $or, $nor, $not or a column")
    test = _test(value)
    return lambda row: test(read(row, key))


def _nested(key: str, value: Any, read: Read) -> Test:
    if not isinstance(value, Mapping):
        raise Invalid(f"filters: {key} got {type(value).__name__}; give it a JSON object")
    return matcher(value, read)


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Invalid(f"filters: {name} got {type(value).__name__}; give it a list")
    return value


def _test(wanted: Any) -> Test:
    if isinstance(wanted, Mapping) and any(str(key).startswith("$") for key in wanted):
        tests = [_operator(str(name), operand) for name, operand in wanted.items()]
        return lambda value: all(test(value) for test in tests)
    return _equals(wanted)


def _operator(name: str, operand: Any) -> Test:
    if name in ("$in", "$nin"):
        found = [_equals(each) for each in _list(name, operand)]
        return _negate(lambda value: any(test(value) for test in found), name == "$nin")
    if name == "$not":
        return _negate(_test(operand), True)
    if name in ("$eq", "$ne"):
        return _negate(_equals(operand), name == "$ne")
    if name in _COMPARE:
        compare = _COMPARE[name]
        return lambda value: _compares(compare, value, operand)
    if name == "$exists":
        return lambda value: (value is not None) == bool(operand)
    if name == "$regex":
        pattern = _pattern(operand)
        return lambda value: isinstance(value, str) and pattern.search(value) is not None
    known = "$eq $ne $in $nin $gt $gte $lt $lte $regex $exists $not"
    raise Invalid(f"filters: got operator {name!r}; served are {known}")


_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {"$gt": gt, "$gte": ge, "$lt": lt, "$lte": le}


def _negate(test: Test, negative: bool) -> Test:
    return (lambda value: not test(value)) if negative else test


def _equals(wanted: Any) -> Test:
    def test(value: Any) -> bool:
        if isinstance(value, list) and not isinstance(wanted, list):
            return wanted in value if wanted is not None else not value
        if isinstance(value, datetime):
            return value == _moment(wanted)
        return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)

    return test


def _compares(compare: Callable[[Any, Any], bool], value: Any, operand: Any) -> bool:
    if isinstance(value, datetime):
        operand = _moment(operand)
    try:
        return value is not None and operand is not None and bool(compare(value, operand))
    except TypeError:
        return False


def _moment(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _pattern(text: Any) -> re.Pattern[str]:
    try:
        if len(text) > MAX_REGEX:
            raise Invalid(f"filters: $regex has {len(text)} characters; at most {MAX_REGEX}")
        return re.compile(text)
    except (re.error, TypeError) as error:
        raise Invalid(f"filters: $regex got {text!r}; {error}") from error


def _walk(value: Any, parts: Sequence[str]) -> Any:
    """Follow a dotted path; keys may hold dots themselves, and W&B's `.value` after a config key is passed over."""
    if not parts:
        return value
    if isinstance(value, Mapping):
        for count in range(len(parts), 0, -1):
            key = ".".join(parts[:count])
            if key in value:
                return _walk(value[key], parts[count:])
    return _walk(value, parts[1:]) if parts[0] == "value" else None


def _seconds(run: RunRow) -> float | None:
    """How long a run has taken, or takes so far; None before its start."""
    end = run.finished_at or run.heartbeat_at
    return (end - run.started_at).total_seconds() if run.started_at and end else None


def _rank(value: Any) -> tuple[int, Any]:
    """Numbers before times before texts, so that a mixed column sorts at all."""
    if isinstance(value, bool | int | float):
        return (0, value if value == value else float("-inf"))
    return (1, value) if isinstance(value, datetime) else (2, str(value))
