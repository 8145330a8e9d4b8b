"""Early termination: stop the runs that their sweep's `early_terminate` gives up on.

It looks at running sweeps from the hub's watch (every few seconds), never from a request. It remembers what it has read
of each run, so that a look costs the new lines alone.
"""

from __future__ import annotations

import logging
import threading
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prunefleet.infra.controller.stopping.hyperband import RunHistory, StopDecision
from prunefleet.infra.hub.runs import sweep_config
from prunefleet.infra.hub.runs.lifecycle import request_stop
from prunefleet.infra.hub.store import lines as store_lines
from prunefleet.infra.hub.store import statements
from prunefleet.infra.hub.store.database import Connection, Store
from prunefleet.infra.hub.store.rows import RunState, SweepRow, SweepState
from prunefleet.infra.hub.store.states import LIVE_STATES

log = logging.getLogger(__name__)
NOT_A_NUMBER = ("NaN", "Infinity", "-Infinity")  # how W&B writes numbers that JSON does not have


@dataclass
class _Seen:
    """What was read of a run's history: the number of lines, and the metric's values in them."""

    lines: int = 0
    values: array[float] = field(default_factory=lambda: array("d"))
    settled: bool = False


class EarlyStopping:
    """Early termination of one store's running sweeps."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store, self._clock = store, clock
        self._seen: dict[int, tuple[str, dict[int, _Seen]]] = {}
        self._looked_at = -1
        self._problem = ""
        self._looking = threading.Lock()

    def watch(self) -> None:
        """One look of the hub's watch: what goes wrong is told once, and tried again at the next look."""
        try:
            self.stop_early()
            self._problem = ""
        except Exception as error:  # neither a full disk nor a mistake here may end the watch
            told, self._problem = self._problem, f"{type(error).__name__}: {error}"
            if self._problem != told:
                log.warning("early termination did not look: %s", self._problem)

    def stop_early(self) -> list[StopDecision]:
        """Ask the runs to stop that their sweep's `early_terminate` gives up on; returns them."""
        with self._looking:
            changes = self._store.changes.value
            if changes == self._looked_at:
                return []
            with self._store.read() as connection:
                found = self._look(connection)
            self._looked_at = changes
        if found:
            self._store.write(lambda c: self._stop(c, found))
        return [stop for _, stops in found for stop in stops]

    def _look(self, connection: Connection) -> list[tuple[SweepRow, list[StopDecision]]]:
        active = [s for state in _STOPPING for s in statements.sweeps_in(connection, state)]
        rules = {sweep.id: (sweep, rule) for sweep in active if (rule := sweep_config.stop_rule(sweep.config))}
        self._seen = {sweep_id: seen for sweep_id, seen in self._seen.items() if sweep_id in rules}
        found = [(sweep, self._judge(connection, sweep, rule)) for sweep, rule in rules.values()]
        return [(sweep, stops) for sweep, stops in found if stops]

    def _judge(self, connection: Connection, sweep: SweepRow, rule: sweep_config.StopRule) -> list[StopDecision]:
        metric = sweep.config["metric"]
        name, seen = self._seen.get(sweep.id, ("", {}))
        if name != metric["name"]:
            seen = {}
            self._seen[sweep.id] = (metric["name"], seen)
        judged = []
        for run_id, run_name, state, told in statements.sweep_starts(connection, sweep.id):
            known = seen.setdefault(run_id, _Seen())
            _read_on(connection, run_id, metric["name"], known, live=state in LIVE_STATES)
            running, finished = state is RunState.RUNNING and not told, state is RunState.FINISHED
            judged.append(RunHistory(run_name, known.values, running=running, finished=finished))
        return rule.to_stop(judged, maximise=metric.get("goal") == "maximize")

    def _stop(self, connection: Connection, found: list[tuple[SweepRow, list[StopDecision]]]) -> None:
        now = self._clock()
        for sweep, stop in ((sweep, stop) for sweep, stops in found for stop in stops):
            run = statements.run_named(connection, sweep.entity, sweep.project, stop.name)
            if run is not None and run.state is RunState.RUNNING:
                log.info("run %s of sweep %s is asked to stop: %s", stop.name, sweep.name, stop)
                request_stop(connection, run, now, str(stop))


_STOPPING = (SweepState.RUNNING, SweepState.PAUSED)


def _read_on(connection: Connection, run_id: int, metric: str, known: _Seen, *, live: bool) -> None:
    """Read what a run has logged since; what has ended is read once more and then left alone."""
    if known.settled and not live:
        return
    known.settled = not live
    until = store_lines.count(connection, run_id, store_lines.Stream.HISTORY)
    if until > known.lines:
        for text in store_lines.holding(connection, run_id, metric.split(".")[0], known.lines, until):
            value = metric_in(store_lines.parse(text), metric)
            if value is not None:
                known.values.append(value)
        known.lines = until


def metric_in(row: Mapping[str, Any], name: str) -> float | None:
    """A metric's value in a row of history, its name plain or nested by dots; None where the row has none."""
    found: Any = row.get(name)
    if found is None and "." in name:
        found = row
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    if found in NOT_A_NUMBER:
        return float(found)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
