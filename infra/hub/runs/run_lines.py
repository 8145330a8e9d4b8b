"""What runs logged line by line: history, system metrics and console."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from prunefleet.infra.hub.store import lines as store_lines
from prunefleet.infra.hub.store.database import Store
from prunefleet.infra.hub.store.lines import Stream

T = TypeVar("T")


class RunLines:
    """The lines of one store's runs."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def _read(self, work: Callable[..., T], *args: Any) -> T:
        with self._store.read() as connection:
            return work(connection, *args)

    def history(self, run_id: int, after_line: int = 0) -> list[dict[str, Any]]:
        """A run's history rows from that line on."""
        return self._rows(run_id, Stream.HISTORY, after_line)

    def events(self, run_id: int) -> list[dict[str, Any]]:
        """A run's rows of system metrics."""
        return self._rows(run_id, Stream.EVENTS, 0)

    def console(self, run_id: int, last: int = 500) -> list[str]:
        """The last lines of a run's console, in order."""
        return [text for _number, text in self._read(store_lines.tail, run_id, Stream.CONSOLE, last)]

    def texts(self, run_id: int, stream: Stream) -> list[str]:
        """All lines of a run's stream, as stored."""
        return [text for _number, text in self.numbered(run_id, stream)]

    def numbered(self, run_id: int, stream: Stream) -> list[tuple[int, str]]:
        """All lines of a run's stream with their numbers."""
        return self._read(store_lines.page, run_id, stream, 0, 1 << 60)

    def tail(self, run_id: int, stream: Stream, last: int) -> list[tuple[int, str]]:
        """The last lines of a run's stream with their numbers, in order."""
        return self._read(store_lines.tail, run_id, stream, last)

    def count(self, run_id: int, stream: Stream) -> int:
        """How many lines a run's stream has."""
        return self._read(store_lines.count, run_id, stream)

    def steps(self, run_id: int, low: int, high: int, limit: int) -> list[str]:
        """Up to `limit` history rows with `low` <= _step < `high`."""
        return self._read(store_lines.steps, run_id, low, high, limit)

    def last_step(self, run_id: int) -> int:
        """The last step in a run's history, -1 where there is none."""
        return self._read(store_lines.last_step, run_id)

    def _rows(self, run_id: int, stream: Stream, after: int) -> list[dict[str, Any]]:
        found = self._read(store_lines.page, run_id, stream, after, 1 << 60)
        return [store_lines.parse(text) for _number, text in found]
