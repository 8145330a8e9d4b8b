"""Ends what was not heard of for too long: lost runs, and runs given to an agent that never started them.

Silence counts from the hub's own start at the earliest: while the hub was away nobody could be heard.
"""

from __future__ import annotations

from infra.hub import runs, store_rows
from infra.hub.lifecycle import Timing, blames_host, end
from infra.hub.rows import RunRow, RunState
from infra.hub.store import Connection


def overdue(connection: Connection, timing: Timing, hub_started: float, now: float) -> list[RunRow]:
    """Live runs that nobody speaks for any more."""
    return [
        run
        for run in store_rows.live_runs(connection)
        if now - max(hub_started, _last_word(connection, run)) > _patience(run, timing)
    ]


def reap(connection: Connection, timing: Timing, hub_started: float, now: float) -> list[RunRow]:
    """End every overdue run; returns them."""
    found = overdue(connection, timing, hub_started, now)
    for run in found:
        end(connection, run, None, now, host_is_blamed=blames_host(runs.sweep_of(connection, run)))
    return found


def _patience(run: RunRow, timing: Timing) -> float:
    return timing.agent_silence if run.state is RunState.PENDING and run.agent else timing.run_silence


def _last_word(connection: Connection, run: RunRow) -> float:
    """When the run, or for one that has not started its agent, was last heard."""
    times = [run.created_at, run.issued_at, run.heartbeat_at]
    if run.state is RunState.PENDING:
        times.append(store_rows.agent_heartbeat(connection, run.id))
    return max(moment.timestamp() for moment in times if moment is not None)
