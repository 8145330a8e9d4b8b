"""SQL for what runs log line by line: history rows, system metrics, console output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from prunefleet.infra.hub.store.database import Connection, execute, execute_each, many, scalar

_STEP_LIMIT = 1 << 62  # what the database can hold; NaN is not below it


class Stream(StrEnum):
    """The three logs of a run that grow by lines."""

    HISTORY = "history"
    EVENTS = "events"
    CONSOLE = "console"


def put(connection: Connection, run_id: int, stream: Stream, offset: int, lines: Sequence[str]) -> None:
    """Store `lines` from line number `offset` on; a line sent twice is stored once, the later text wins.

    A row of history that stands at an earlier line already is passed over: `wandb sync` of a run whose history is here
    in part sends all of it once more, after what is here.
    """
    sql = """
    INSERT INTO line (run_id, stream, number, step, text) VALUES (:run_id, :stream, :number, :step, :text)
    ON CONFLICT DO UPDATE SET step = excluded.step, text = excluded.text
    """
    common = {"run_id": run_id, "stream": stream.value}
    history = stream is Stream.HISTORY
    rows: list[_Numbered] = [(n, text, _step(text) if history else None) for n, text in enumerate(lines, offset)]
    rows = _unrepeated(connection, run_id, rows) if history else rows
    execute_each(connection, sql, [{**common, "number": n, "text": text, "step": step} for n, text, step in rows])
    if history and rows:
        sql = "UPDATE run SET history_lines = :end WHERE id = :run_id AND history_lines < :end"
        execute(connection, sql, run_id=run_id, end=rows[-1][0] + 1)


_Numbered = tuple[int, str, int | None]


def _unrepeated(connection: Connection, run_id: int, rows: list[_Numbered]) -> list[_Numbered]:
    """The rows that stand at no line before the first of them. Where steps grow, as they do, one look says all do."""
    if not rows:
        return rows
    sql = "SELECT number, step, text FROM line WHERE run_id = :run_id AND stream = 'history' AND number < :number"
    known = {"run_id": run_id, "number": rows[0][0]}
    before = many(connection, sql + " ORDER BY number DESC LIMIT 1", **known)
    first = rows[0][2]
    if not before or first is None or before[0]["step"] is None or before[0]["step"] < first:
        return rows
    stored = {
        (row["step"], _canonical(row["text"]))
        for row in many(connection, sql + " AND step >= :step", step=first, **known)
    }
    return [row for row in rows if (row[2], _canonical(row[1])) not in stored]


def _canonical(text: str) -> str:
    """A row in one writing: the client orders its keys anew each time."""
    return json.dumps(parse(text), sort_keys=True)


def count(connection: Connection, run_id: int, stream: Stream) -> int:
    """How many lines there are: one more than the last line number."""
    sql = "SELECT COALESCE(MAX(number) + 1, 0) FROM line WHERE run_id = :run_id AND stream = :stream"
    return int(scalar(connection, sql, run_id=run_id, stream=stream.value))


def page(connection: Connection, run_id: int, stream: Stream, after: int, limit: int) -> list[tuple[int, str]]:
    """Up to `limit` numbered lines from line number `after` on."""
    sql = """
    SELECT number, text FROM line WHERE run_id = :run_id AND stream = :stream AND number >= :after
    ORDER BY number LIMIT :limit
    """
    found = many(connection, sql, run_id=run_id, stream=stream.value, after=after, limit=limit)
    return [(row["number"], row["text"]) for row in found]


def tail(connection: Connection, run_id: int, stream: Stream, last: int) -> list[tuple[int, str]]:
    """The last numbered lines, in order."""
    sql = """
    SELECT number, text FROM line WHERE run_id = :run_id AND stream = :stream ORDER BY number DESC LIMIT :last
    """
    found = many(connection, sql, run_id=run_id, stream=stream.value, last=last)
    return [(row["number"], row["text"]) for row in reversed(found)]


def steps(connection: Connection, run_id: int, low: int, high: int, limit: int) -> list[str]:
    """Up to `limit` history rows with `low` <= _step < `high`, in order."""
    sql = """
    SELECT text FROM line WHERE run_id = :run_id AND stream = 'history' AND step >= :low AND step < :high
    ORDER BY number LIMIT :limit
    """
    return [row["text"] for row in many(connection, sql, run_id=run_id, low=low, high=high, limit=limit)]


def holding(connection: Connection, run_id: int, word: str, low: int, high: int) -> list[str]:
    """History rows with `low` <= line number < `high` that hold `word`; all of them for one that JSON escapes."""
    sql = """
    SELECT text FROM line WHERE run_id = :run_id AND stream = 'history' AND number >= :low AND number < :high
    AND instr(text, :word) > 0 ORDER BY number
    """
    word = word if word.isascii() and json.dumps(word) == f'"{word}"' else ""
    return [row["text"] for row in many(connection, sql, run_id=run_id, word=word, low=low, high=high)]


def last_step(connection: Connection, run_id: int) -> int:
    """The greatest `_step` logged, -1 where there is none."""
    sql = "SELECT COALESCE(MAX(step), -1) FROM line WHERE run_id = :run_id AND stream = 'history'"
    return int(scalar(connection, sql, run_id=run_id))


def parse(text: str) -> dict[str, Any]:
    """A line as the row it holds; `{}` for one that is not a JSON object."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _step(text: str) -> int | None:
    step = parse(text).get("_step")
    return int(step) if isinstance(step, int | float) and abs(step) < _STEP_LIMIT else None
