"""Ends what was not heard of for too long: lost runs, and runs given to an agent that never started them.

Silence counts from the hub's own start at the earliest: while the hub was away nobody could be heard.
"""

from __future__ import annotations

from datetime import datetime

from infra.hub import runs, store_rows
from infra.hub.lifecycle import Timing, blames_host, end
from infra.hub.rows import RunRow, RunState
from infra.hub.store import Connection
from infra.hub.sweep_config import is_controller_run


def overdue(connection: Connection, timing: Timing, hub_started: float, now: float) -> list[RunRow]:
    """Live runs that nobody speaks for any more."""
    return [run for run in store_rows.live_runs(connection) if _is_overdue(connection, run, timing, hub_started, now)]


def reap(connection: Connection, timing: Timing, hub_started: float, now: float) -> list[RunRow]:
    """End every overdue run; returns them."""
    found = overdue(connection, timing, hub_started, now)
    for run in found:
        exit_code = 0 if run.sweep is None and is_controller_run(run.name) else None
        end(connection, run, exit_code, now, host_is_blamed=blames_host(runs.sweep_of(connection, run)))
    return found


def _is_overdue(connection: Connection, run: RunRow, timing: Timing, hub_started: float, now: float) -> bool:
    def silence(*moments: datetime | None) -> float:
        return now - max([hub_started, *(moment.timestamp() for moment in moments if moment is not None)])

    agent = silence(run.issued_at, store_rows.agent_heartbeat(connection, run.id))
    if run.state is RunState.PENDING:
        return agent > timing.agent_silence
    own = silence(run.started_at, run.heartbeat_at)
    if own > timing.run_silence or run.agent is None:
        return own > timing.run_silence
    host = min(own, agent)
    back = host > timing.succeeded_silence and store_rows.is_succeeded(connection, run.id)
    return back or host > timing.host_silence
