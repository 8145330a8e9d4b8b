"""What a user does to runs from outside their processes: set a state, delete, raise an alert."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from prunefleet.infra.hub.artifacts import edits
from prunefleet.infra.hub.runs import lifecycle, runs
from prunefleet.infra.hub.store.database import Connection, Store, insert, many
from prunefleet.infra.hub.store.rows import RunRow
from prunefleet.infra.hub.store.statements import moment


@dataclass(frozen=True)
class Alert:
    """What a run told its user by `run.alert(…)`; `severity` is INFO, WARN or ERROR."""

    title: str
    text: str
    severity: str
    created_at: datetime


class RunEdits:
    """Edits of one store's runs."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    def set_state(self, run_id: int, wanted: str) -> RunRow:
        """Set a run without a sweep to pending or failed. Raises `Missing`, `Invalid`, `Conflict`."""

        def work(connection: Connection) -> RunRow:
            lifecycle.set_run_state(connection, runs.reread(connection, run_id), wanted, self._clock())
            return runs.reread(connection, run_id)

        return self._store.write(work)

    def delete(self, run_id: int, *, with_artifacts: bool) -> RunRow:
        """Forget a run and all it logged, its artifacts too where asked; returns what it was. Raises `Missing`."""

        def work(connection: Connection) -> RunRow:
            if with_artifacts:
                edits.delete_outputs(connection, run_id)
            return runs.delete(connection, run_id)

        return self._store.write(work)

    def alert(self, run_id: int, title: str, text: str, severity: str) -> None:
        """Keep an alert of a run. Raises `Missing`."""
        now = self._clock()

        def work(connection: Connection) -> None:
            runs.reread(connection, run_id)
            insert(connection, "alert", run_id=run_id, title=title, text=text, severity=severity, created_at=now)

        self._store.write(work)

    def alerts(self, run_id: int) -> list[Alert]:
        """A run's alerts, newest first."""
        with self._store.read() as connection:
            rows = many(connection, "SELECT * FROM alert WHERE run_id = :run_id ORDER BY id DESC", run_id=run_id)
        return [Alert(row["title"], row["text"], row["severity"], moment(row["created_at"])) for row in rows]
