"""The one place that writes the state of a run or a sweep, as the tables of `states.py` allow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from prunefleet.infra.hub.store import statements
from prunefleet.infra.hub.store.database import Connection, update
from prunefleet.infra.hub.store.errors import Conflict, Invalid
from prunefleet.infra.hub.store.rows import RunRow, RunState, SweepRow, SweepState
from prunefleet.infra.hub.store.states import (
    ENDED_STATES,
    LIVE_STATES,
    QUEUED_STATES,
    RunEvent,
    after,
    ending,
    may_become,
)

OWN_PROGRAM = "prunefleet"
KEPT_FAILING = "kept_failing"
_FREE = {"stop_requested_at": None, "stop_reason": None}


@dataclass(frozen=True)
class Timeouts:
    """How long the hub waits before it acts, in seconds.

    `run_silence`: a run nobody heard of is lost (the client speaks at least every 30 s). `agent_silence`: an agent is
    gone, and what it was given but never started goes to another. `host_silence`: neither agent nor run was heard, so
    their host is gone; `superseded_silence` is enough where that host is back with another agent, which began since (a
    run whose agent alone was killed speaks within 30 s), and `certain_silence`, two polls of an agent, where the host
    says that it left the run behind. `stop_grace`: after a stop request, how long the
    process may take by itself before its agent is told to end it. `issue_grace`: how long an agent may take to list a
    run it was given.
    """

    run_silence: float = 300.0
    agent_silence: float = 60.0
    host_silence: float = 90.0
    superseded_silence: float = 40.0
    certain_silence: float = 10.0
    stop_grace: float = 45.0
    issue_grace: float = 3.0


def blames_host(sweep: SweepRow | None) -> bool:
    """Whether what a host does to a run is tried again: trials of this project say themselves what is their fault."""
    return sweep is not None and sweep.config.get("program") == OWN_PROGRAM


def happen(connection: Connection, run: RunRow, event: RunEvent, now: float, **columns: object) -> RunState:
    """Let `event` happen to `run`; writes the new state, what follows from it, and `columns`, if the state moves."""
    state = after(run.state, event)
    if state != run.state:
        update(connection, "run", run.id, state=state.value, **{**_consequences(run, state, event, now), **columns})
    return state


def end(connection: Connection, run: RunRow, exit_code: int | None, now: float, *, host_is_blamed: bool) -> RunState:
    """The run's process ended with `exit_code`, or vanished (None)."""
    stopped = run.stop_requested_at is not None
    # What was stopped for its agent's sake has not failed, however often that happens to it: it is nobody's any more.
    spared = statements.is_being_stopped(connection, run.id)
    retries = 0 if spared else run.retries
    event = ending(run.state, exit_code, stop_requested=stopped, host_is_blamed=host_is_blamed, retries=retries)
    freed = {"agent_id": None} if spared and event is RunEvent.REQUEUED else {}
    return happen(connection, run, event, now, exit_code=exit_code, **freed)


def issue(connection: Connection, run: RunRow, agent_id: int, now: float) -> None:
    """Give a queued run to an agent; one that an agent has failed, or lost, counts a retry."""
    if run.unissued:
        update(connection, "run", run.id, agent_id=agent_id, issued_at=now)
    else:
        spared = {"retries": run.retries} if run.agent is None else {}
        happen(connection, run, RunEvent.ISSUED, now, agent_id=agent_id, **spared)


def request_stop(connection: Connection, run: RunRow, now: float, reason: str | None = None) -> None:
    """Ask a live run to stop; take a queued one out of the queue; leave an ended one alone."""
    if run.state in QUEUED_STATES or run.unissued:
        happen(connection, run, RunEvent.STOPPED, now, stop_reason=reason)
    elif run.state in LIVE_STATES and run.stop_requested_at is None:
        update(connection, "run", run.id, stop_requested_at=now, stop_reason=reason)


def set_run_state(connection: Connection, run: RunRow, wanted: str, now: float) -> RunState:
    """What `wandb.Api().run(…).update_state` may do to a run without a sweep: make it wait again, or give it up.

    Raises `Invalid` for another state than pending or failed, `Conflict` where the table forbids it.
    """
    event = _BY_USER.get(wanted)
    if event is None:
        raise Invalid(f"state: got {wanted[:40]!r}; a run can be set to {' or '.join(_BY_USER)}")
    if run.sweep is not None:
        raise Conflict(f"state: run {run.name} belongs to a sweep, which alone moves it; stop the run instead")
    if wanted not in (run.state, after(run.state, event)):
        raise Conflict(f"state: run {run.name} is {run.state} and cannot become {wanted}")
    return happen(connection, run, event, now)


_BY_USER = {"pending": RunEvent.RESET, "failed": RunEvent.FAILED}


def set_sweep_state(connection: Connection, sweep: SweepRow, wanted: SweepState, now: float) -> None:
    """Move the sweep; cancelling stops its runs, finishing those that no agent was given yet.

    Raises `Conflict` where the table forbids it.
    """
    if not may_become(sweep.state, wanted):
        raise Conflict(f"state: sweep {sweep.name} is {sweep.state} and cannot become {wanted}")
    if wanted != sweep.state:
        update(connection, "sweep", sweep.id, state=wanted.value, updated_at=now)
    if wanted is SweepState.CANCELED:
        for run in statements.sweep_runs(connection, sweep.id):
            request_stop(connection, run, now)
    if wanted is SweepState.FINISHED:
        for queued in statements.queued_runs(connection, sweep.id):
            if queued.unissued:
                request_stop(connection, queued, now)


def _consequences(run: RunRow, state: RunState, event: RunEvent, now: float) -> dict[str, Any]:
    if event is RunEvent.RESET:
        return {"issued_at": None, "finished_at": None, "exit_code": None, "stop_requested_at": None}
    if state is RunState.PENDING:
        return {"retries": run.retries + 1, "issued_at": now, **_FREE}
    if state is RunState.RUNNING:
        return {"started_at": now, "finished_at": None, "exit_code": None, **_new_life(run)}
    if event is RunEvent.GAVE_UP:
        return {"finished_at": now, "summary": json.dumps({**run.summary, "outcome": KEPT_FAILING})}
    return {"finished_at": now} if state in ENDED_STATES else {}


def _new_life(run: RunRow) -> dict[str, Any]:
    """A run started again after its end no longer minds the stop that ended it."""
    return _FREE if run.state in ENDED_STATES else {}
