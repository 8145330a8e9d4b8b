"""Agents: registered, heard, and told what to do, at most one thing a heartbeat.

A claim is idempotent: an agent that asks again is given what is already its own, then what is queued, then something
new. The server alone limits concurrency, so a run is only given to an agent that has none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from prunefleet.infra.controller.contract import Exhausted, Suggestion
from prunefleet.infra.hub.runs import holds, runs, sweeps
from prunefleet.infra.hub.runs.lifecycle import Timeouts, blames_host, end, issue, set_sweep_state
from prunefleet.infra.hub.runs.run_queue import is_exhausted
from prunefleet.infra.hub.runs.sweep_config import is_full, searched_here
from prunefleet.infra.hub.store import statements
from prunefleet.infra.hub.store.database import Connection, insert, update
from prunefleet.infra.hub.store.errors import Missing
from prunefleet.infra.hub.store.rows import AgentRow, Hold, RunRow, RunState, SweepRow, SweepState, UserRow
from prunefleet.infra.hub.store.states import ENDED_STATES
from prunefleet.infra.hub.users import projects
from prunefleet.infra.hub.users.access import entity_for
from prunefleet.objective.trial import FailureKind

Offer = Callable[[int], Suggestion | Exhausted | None]
Command = dict[str, Any]
EXIT: Command = {"type": "exit"}
INTERRUPTED = FailureKind.INTERRUPTED.value


@dataclass(frozen=True)
class Orders:
    """The answer to a heartbeat: at most one command, the sweep's id, and whether a run came or went."""

    command: Command | None
    sweep_id: int
    moved: bool


def register(
    connection: Connection, user: UserRow, entity: str | None, project: str | None, sweep: str, host: str, now: float
) -> AgentRow:
    """A new agent of a sweep; the first one starts it. Raises `Missing` for an unknown sweep."""
    entity, project = entity_for(user, entity), project or projects.DEFAULT_PROJECT
    found = statements.sweep_named(connection, entity, project, sweep)
    if found is None:
        raise Missing(f"sweep: got {sweep[:80]!r}, which is not in {entity}/{project}; look at the sweep's address")
    if found.state is SweepState.PENDING:
        set_sweep_state(connection, found, SweepState.RUNNING, now)
    agent_id = insert(
        connection,
        "agent",
        name=runs.random_name(),
        sweep_id=found.id,
        user_id=user.id,
        host=host,
        created_at=now,
        heartbeat_at=now,
    )
    holds.joined(connection, agent_id, held=host in statements.held_hosts(connection, found.id))
    return reread(connection, agent_id)


def heartbeat(
    connection: Connection, agent_id: int, listed: Collection[str], offer: Offer, timeouts: Timeouts, now: float
) -> Orders:
    """Hear what the agent runs (`listed`), settle what it no longer does, and say what to do next.

    `offer` takes the sweep's id and gives what its next run is to try. Raises `Missing` for an agent that is unknown,
    or whose sweep was deleted: the client then ends.
    """
    agent = reread(connection, agent_id)
    sweep = sweeps.reread(connection, agent.sweep_id)
    update(connection, "agent", agent_id, heartbeat_at=now)
    beat = _Beat(agent, sweep, frozenset(listed), timeouts, now)
    held = statements.live_runs_of(connection, agent_id)
    kept = [run for run in held if _keep(connection, beat, run)]
    command, claimed = _orders(connection, beat, kept, offer)
    if (command is EXIT) != agent.left:  # one that did not hear it and was resumed has not left
        update(connection, "agent", agent_id, released=int(command is EXIT))
    return Orders(command, sweep.id, moved=claimed or len(kept) < len(held))


def reread(connection: Connection, agent_id: int) -> AgentRow:
    """The agent as it is now. Raises `Missing`."""
    found = statements.agent(connection, agent_id)
    if found is None:
        raise Missing("agent: it is not known here; its sweep may have been deleted")
    return found


@dataclass(frozen=True)
class _Beat:
    """A heartbeat as it was heard, and the agent as it was before."""

    agent: AgentRow
    sweep: SweepRow
    listed: frozenset[str]
    timeouts: Timeouts
    now: float


def _keep(connection: Connection, beat: _Beat, run: RunRow) -> bool:
    """Whether the agent still has the run; settles it if not."""
    if run.name in beat.listed:
        update(connection, "run", run.id, heartbeat_at=beat.now)
        return True
    if run.state is RunState.PENDING and beat.now - _issued(run) < beat.timeouts.issue_grace:
        return True
    # What was issued and never listed may have been lost on the way: it is queued again in every kind of sweep.
    blamed = blames_host(beat.sweep) or run.state is RunState.PENDING
    end(connection, run, None, beat.now, host_is_blamed=blamed)
    return False


def _orders(connection: Connection, beat: _Beat, held: list[RunRow], offer: Offer) -> tuple[Command | None, bool]:
    """The command, and whether it hands out a run that was not the agent's before."""
    for run in held:
        if run.name in beat.listed and _must_end(run, beat):
            return _stop_command(run.name), False
        # A held agent is not told twice: what it never listed goes back to the queue.
        if run.name not in beat.listed and run.stop_requested_at is None and not beat.agent.hold:
            return _run_command(beat.sweep, run), False
    if beat.listed and beat.agent.hold is Hold.STOP:
        return _stop_command(min(beat.listed)), False
    if held or beat.listed:
        return None, False
    if beat.sweep.state in (SweepState.CANCELED, SweepState.FINISHED) or beat.agent.hold in holds.LEAVING:
        return EXIT, False
    return _claim(connection, beat, offer) if beat.sweep.state is SweepState.RUNNING else (None, False)


def _claim(connection: Connection, beat: _Beat, offer: Offer) -> tuple[Command | None, bool]:
    """Something queued, else something new, else wait; the last agent to wait in vain finishes the sweep.

    A held agent gets neither, but may see that the sweep has all it wants.
    """
    sweep, now = beat.sweep, beat.now
    rests = holds.rests(connection, beat.agent, beat.timeouts.agent_silence, now)
    queued = None if rests else _queued(connection, beat)
    if queued is not None:
        issue(connection, queued, beat.agent.id, now)
        return _run_command(sweep, queued), True
    states = statements.sweep_states(connection, sweep.id)
    offered = _offered(sweep, sum(states.values()), _nothing if rests else offer)
    if isinstance(offered, Suggestion):
        run_id = runs.create_in_sweep(connection, sweep, offered.config, now, agent_id=beat.agent.id, why=offered.why)
        return _run_command(sweep, runs.reread(connection, run_id)), True
    if offered is None or not ENDED_STATES.issuperset(states):
        return None, False  # a run still at work may yet be queued again and need this agent
    set_sweep_state(connection, sweep, SweepState.FINISHED, now)
    return EXIT, True


def _nothing(sweep_id: int) -> None:
    """Take no suggestion, for an agent that may not have it."""


def _queued(connection: Connection, beat: _Beat) -> RunRow | None:
    """What is next in the sweep's queue for this agent.

    A run that failed on the agent's own host is left to other hosts for a while, if there are any: one sick host would
    use up the attempts of run after run.
    """
    sweep, first = beat.sweep, statements.first_queued(connection, beat.sweep.id)
    host = beat.agent.host
    if first is None or not _failed_on(first, host):
        return first
    since = beat.now - beat.timeouts.agent_silence
    if not statements.heard_from_elsewhere(connection, sweep.id, host, since):
        return first
    order = sorted(statements.queued_runs(connection, sweep.id), key=lambda run: run.state is not RunState.PREEMPTED)
    waited = [run for run in order if not _failed_on(run, host) or _last_heard(run) < since]
    return waited[0] if waited else None


def _failed_on(run: RunRow, host: str) -> bool:
    """Whether the run was given back because that host failed, as far as its trial could say; a stop is no failure."""
    told = run.summary.get("failure_kind")
    return run.state is RunState.PREEMPTED and run.host == host and told not in (None, INTERRUPTED)


def _last_heard(run: RunRow) -> float:
    return (run.heartbeat_at or run.created_at).timestamp()


def _offered(sweep: SweepRow, count: int, offer: Offer) -> Suggestion | Exhausted | None:
    """What is new for a sweep of `count` runs; where others queue its runs, nothing until they say there is no more."""
    if is_full(sweep.config, count):
        return Exhausted("run_cap")
    if searched_here(sweep.config):
        return offer(sweep.id)
    return Exhausted("the local controller has no more") if is_exhausted(sweep) else None


def _run_command(sweep: SweepRow, run: RunRow) -> Command:
    return {
        "type": "resume" if run.started_at else "run",
        "run_id": run.name,
        "args": {key: {"value": value} for key, value in (run.config if run.args is None else run.args).items()},
        "program": sweep.config.get("program"),
        "id": run.name,
        "logs": [],
    }


def _stop_command(name: str) -> Command:
    """The client sends SIGTERM to the run's process, and SIGKILL if it is still told so 30 s later."""
    return {"type": "stop", "run_id": name}


def _must_end(run: RunRow, beat: _Beat) -> bool:
    """A process that was asked to stop is left to do so by itself for a while; one that never started is not."""
    if run.stop_requested_at is None:
        return False
    grace = beat.timeouts.stop_grace if run.state is not RunState.PENDING else 0.0
    return beat.now - run.stop_requested_at.timestamp() >= grace


def _issued(run: RunRow) -> float:
    return (run.issued_at or run.created_at).timestamp()
