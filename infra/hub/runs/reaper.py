"""Ends what was not heard of for too long: lost runs, and runs given to an agent that never started them.

Silence counts from the hub's own start at the earliest: while the hub was away nobody could be heard.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from prunefleet.infra.hub.runs import runs
from prunefleet.infra.hub.runs.lifecycle import Timeouts, blames_host, end
from prunefleet.infra.hub.runs.sweep_config import is_controller_run
from prunefleet.infra.hub.store import statements
from prunefleet.infra.hub.store.database import Connection
from prunefleet.infra.hub.store.rows import RunRow, RunState, SweepRow


def overdue(connection: Connection, timeouts: Timeouts, hub_started: float, now: float) -> list[RunRow]:
    """Live runs that nobody speaks for any more."""
    return [run for run in statements.live_runs(connection) if _is_overdue(connection, run, timeouts, hub_started, now)]


def reap(connection: Connection, timeouts: Timeouts, hub_started: float, now: float) -> list[RunRow]:
    """End every overdue run; returns them."""
    found = overdue(connection, timeouts, hub_started, now)
    for run in found:
        _end(connection, run, now)
    return found


def left_behind(
    connection: Connection, sweep: SweepRow, host: str, names: Collection[str], timeouts: Timeouts, now: float
) -> tuple[list[RunRow], list[RunRow]]:
    """End the runs of a sweep that their host says no process of its is at work on any more: it began anew.

    Returns them, and those that were heard a moment ago: of these the host may say so again once it is sure.
    """
    named = [run for run in statements.live_runs(connection) if run.name in names and run.state is not RunState.PENDING]
    found = [run for run in named if (run.entity, run.project, run.sweep) == (sweep.entity, sweep.project, sweep.name)]
    own = [run for run in found if (agent := statements.agent_of(connection, run.id)) and agent.host == host]
    silent = [run for run in own if now - _last_heard(connection, run) > timeouts.certain_silence]
    for run in silent:
        _end(connection, run, now)
    return silent, [run for run in own if run not in silent]


def _end(connection: Connection, run: RunRow, now: float) -> None:
    exit_code = 0 if run.sweep is None and is_controller_run(run.name) else None
    end(connection, run, exit_code, now, host_is_blamed=blames_host(runs.sweep_of(connection, run)))


def _last_heard(connection: Connection, run: RunRow) -> float:
    moments = (run.started_at, run.heartbeat_at, statements.agent_heartbeat(connection, run.id))
    return max((moment.timestamp() for moment in moments if moment is not None), default=0.0)


def _is_overdue(connection: Connection, run: RunRow, timeouts: Timeouts, hub_started: float, now: float) -> bool:
    def silence(*moments: datetime | None) -> float:
        return now - max([hub_started, *(moment.timestamp() for moment in moments if moment is not None)])

    agent = silence(run.issued_at, statements.agent_heartbeat(connection, run.id))
    if run.state is RunState.PENDING:
        return agent > timeouts.agent_silence
    own = silence(run.started_at, run.heartbeat_at)
    if own > timeouts.run_silence or run.agent is None:
        return own > timeouts.run_silence
    host = min(own, agent)
    back = host > timeouts.superseded_silence and statements.is_superseded(connection, run.id)
    return back or host > timeouts.host_silence
