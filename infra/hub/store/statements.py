"""SQL that reads: the store's tables as the rows of `rows.py`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

import yaml

from prunefleet.infra.hub.store.database import Connection, RowMapping, many, one, scalar
from prunefleet.infra.hub.store.rows import AgentRow, Hold, ProjectRow, RunRow, RunState, SweepRow, SweepState, UserRow
from prunefleet.infra.hub.store.stored_run import StoredRun, maybe_moment, selected
from prunefleet.infra.hub.store.stored_run import moment as moment
from prunefleet.infra.hub.store.stored_run import plain as plain

T = TypeVar("T")
_STATES = {state.value: state for state in RunState}
_RUN = f"""
SELECT {selected()}
FROM run
JOIN project ON project.id = run.project_id
JOIN user ON user.id = run.user_id
LEFT JOIN sweep ON sweep.id = run.sweep_id
LEFT JOIN agent ON agent.id = run.agent_id
"""  # noqa: S608 - of names of ours
_SWEEP = """
SELECT sweep.*, project.entity, project.name AS project_name, user.username
FROM sweep JOIN project ON project.id = sweep.project_id JOIN user ON user.id = sweep.user_id
"""
_AGENT = """
SELECT agent.*, sweep.name AS sweep_name,
       (SELECT run.name FROM run WHERE run.agent_id = agent.id AND run.state IN ('pending', 'running', 'preempting')
        ORDER BY run.issued_at DESC LIMIT 1) AS run_name
FROM agent JOIN sweep ON sweep.id = agent.sweep_id
"""
# In a sweep's queue: given back by its host's failure, or queued and given to no agent yet.
_QUEUED = "(state = 'preempted' OR (state = 'pending' AND issued_at IS NULL AND args IS NOT NULL))"


def users(connection: Connection) -> list[UserRow]:
    """All users, oldest first."""
    return [_user(row) for row in many(connection, "SELECT * FROM user ORDER BY id")]


def user_named(connection: Connection, username: str) -> UserRow | None:
    """The user of that name."""
    row = one(connection, "SELECT * FROM user WHERE username = :username", username=username)
    return _one(_user, row)


def user_with_key(connection: Connection, key_hash: str) -> UserRow | None:
    """Whose key has that keyed hash; with a host's key nobody is an administrator."""
    sql = """
    SELECT user.id, username, admin AND host IS NULL AS admin
    FROM api_key JOIN user ON user.id = api_key.user_id WHERE api_key.hash = :key_hash
    """
    return _one(_user, one(connection, sql, key_hash=key_hash))


def projects(connection: Connection, entity: str | None) -> list[ProjectRow]:
    """Projects of an entity, or all, newest first."""
    sql = "SELECT * FROM project WHERE :entity IS NULL OR entity = :entity ORDER BY created_at DESC, id DESC"
    return [_project(row) for row in many(connection, sql, entity=entity)]


def project(connection: Connection, entity: str, name: str) -> ProjectRow | None:
    """The project of that name."""
    row = one(connection, "SELECT * FROM project WHERE entity = :entity AND name = :name", entity=entity, name=name)
    return _one(_project, row)


def sweeps(connection: Connection, entity: str, project: str) -> list[SweepRow]:
    """Sweeps of a project, newest first."""
    sql = _SWEEP + "WHERE project.entity = :entity AND project.name = :project ORDER BY sweep.id DESC"
    return [_sweep(row) for row in many(connection, sql, entity=entity, project=project)]


def sweep(connection: Connection, sweep_id: int) -> SweepRow | None:
    """The sweep with that id."""
    row = one(connection, _SWEEP + "WHERE sweep.id = :sweep_id", sweep_id=sweep_id)
    return _one(_sweep, row)


def sweep_named(connection: Connection, entity: str, project: str, name: str) -> SweepRow | None:
    """The sweep of that name in the project."""
    sql = _SWEEP + "WHERE project.entity = :entity AND project.name = :project AND sweep.name = :name"
    row = one(connection, sql, entity=entity, project=project, name=name)
    return _one(_sweep, row)


def sweeps_in(connection: Connection, state: SweepState) -> list[SweepRow]:
    """All sweeps in that state."""
    return [_sweep(row) for row in many(connection, _SWEEP + "WHERE sweep.state = :state", state=state.value)]


def run(connection: Connection, run_id: int) -> RunRow | None:
    """The run with that id."""
    row = one(connection, _RUN + "WHERE run.id = :run_id", run_id=run_id)
    return _one(_run, row)


def run_named(connection: Connection, entity: str, project: str, name: str) -> RunRow | None:
    """The run of that name in the project."""
    sql = _RUN + "WHERE project.entity = :entity AND project.name = :project AND run.name = :name"
    row = one(connection, sql, entity=entity, project=project, name=name)
    return _one(_run, row)


def runs(connection: Connection, entity: str, project: str) -> list[RunRow]:
    """Runs of a project by creation."""
    sql = _RUN + "WHERE project.entity = :entity AND project.name = :project ORDER BY run.id"
    return [_run(row) for row in many(connection, sql, entity=entity, project=project)]


def runs_by_id(connection: Connection, ids: Sequence[int]) -> list[RunRow]:
    """The runs with these ids, in this order."""
    sql = _RUN + "WHERE run.id IN (SELECT value FROM json_each(:ids))"  # noqa: S608
    found = {row["id"]: row for row in many(connection, sql, ids=json.dumps(list(ids)))}
    return [_run(found[run_id]) for run_id in ids]


def sweep_runs(connection: Connection, sweep_id: int, newer_than: int = 0) -> list[StoredRun]:
    """Runs of a sweep by creation: all, or those that changed after a revision."""
    newer = " AND run.revision > :newer_than" if newer_than else ""  # without it the index gives the order for nothing
    sql = f"{_RUN}WHERE run.sweep_id = :id{newer} ORDER BY run.id"
    return [_run(row) for row in many(connection, sql, id=sweep_id, newer_than=newer_than)]


def loose_runs(connection: Connection, project_id: int, most: int) -> list[RunRow]:
    """A project's newest runs that belong to no sweep, newest first."""
    sql = _RUN + "WHERE run.project_id = :id AND run.sweep_id IS NULL ORDER BY run.id DESC LIMIT :most"
    return [_run(row) for row in many(connection, sql, id=project_id, most=most)]


def number_in_sweep(connection: Connection, run_id: int) -> int:
    """The how-manieth run of its sweep a run is, from 1; 0 for a run without a sweep."""
    sql = "SELECT COUNT(*) FROM run WHERE sweep_id = (SELECT sweep_id FROM run WHERE id = :run_id) AND id <= :run_id"
    return int(scalar(connection, sql, run_id=run_id))


def sweep_version(connection: Connection, sweep_id: int) -> tuple[int, int]:
    """How many runs a sweep has, and the last revision of one."""
    sql = "SELECT COUNT(*) AS n, COALESCE(MAX(revision), 0) AS last FROM run WHERE sweep_id = :id"
    row = one(connection, sql, id=sweep_id)
    assert row is not None
    return row["n"], row["last"]


def sweep_starts(connection: Connection, sweep_id: int) -> list[tuple[int, str, RunState, bool]]:
    """Id, name and state of a sweep's runs that have started, and whether they were asked to stop; by creation."""
    sql = "SELECT id, name, state, stop_requested_at FROM run WHERE sweep_id = :id AND started_at > 0 ORDER BY id"
    found = many(connection, sql, id=sweep_id)
    return [(r["id"], r["name"], RunState(r["state"]), r["stop_requested_at"] is not None) for r in found]


def sweep_states(connection: Connection, sweep_id: int) -> dict[RunState, int]:
    """How many runs of a sweep are in each state."""
    sql = "SELECT state, COUNT(*) AS n FROM run WHERE sweep_id = :id GROUP BY state"
    return {RunState(row["state"]): row["n"] for row in many(connection, sql, id=sweep_id)}


def first_queued(connection: Connection, sweep_id: int) -> RunRow | None:
    """The run of a sweep that is next for an agent: the oldest that had one, else the oldest that was queued."""
    sql = f"SELECT id FROM run WHERE sweep_id = :id AND {_QUEUED} ORDER BY state <> 'preempted', id LIMIT 1"  # noqa: S608
    found = scalar(connection, sql, id=sweep_id)
    return None if found is None else run(connection, found)


def queued_runs(connection: Connection, sweep_id: int) -> list[RunRow]:
    """The runs of a sweep that wait for an agent, by creation."""
    sql = f"SELECT id FROM run WHERE sweep_id = :id AND {_QUEUED} ORDER BY id"  # noqa: S608
    return [found for row in many(connection, sql, id=sweep_id) if (found := run(connection, row["id"])) is not None]


def heard_from_elsewhere(connection: Connection, sweep_id: int, host: str, since: float) -> bool:
    """Whether an agent of the sweep on another host was heard since then, and is not held."""
    sql = """
    SELECT 1 FROM agent
    WHERE sweep_id = :id AND host <> :host AND heartbeat_at >= :since AND NOT released AND hold = '' LIMIT 1
    """
    return scalar(connection, sql, id=sweep_id, host=host, since=since) is not None


def prior_runs(connection: Connection, sweep_id: int) -> list[RunRow]:
    """The runs that a sweep was told of when it was made, by creation."""
    sql = _RUN + "JOIN prior_run ON prior_run.run_id = run.id WHERE prior_run.sweep_id = :id ORDER BY run.id"
    return [_run(row) for row in many(connection, sql, id=sweep_id)]


def agent_runs(connection: Connection, agent_id: int) -> list[RunRow]:
    """Runs an agent holds or held last, by creation."""
    return [_run(row) for row in many(connection, _RUN + "WHERE run.agent_id = :id ORDER BY run.id", id=agent_id)]


def live_runs_of(connection: Connection, agent_id: int) -> list[RunRow]:
    """The runs an agent holds."""
    sql = _RUN + "WHERE run.agent_id = :id AND run.state IN ('pending', 'running', 'preempting') ORDER BY run.id"
    return [_run(row) for row in many(connection, sql, id=agent_id)]


def live_runs(connection: Connection) -> list[RunRow]:
    """Every run that some process may be at work on; one that was given to no agent yet is not."""
    sql = (
        _RUN + "WHERE run.state IN ('pending', 'running', 'preempting') "
        "AND NOT (run.state = 'pending' AND run.issued_at IS NULL) ORDER BY run.id"
    )
    return [_run(row) for row in many(connection, sql)]


def agent(connection: Connection, agent_id: int) -> AgentRow | None:
    """The agent with that id."""
    row = one(connection, _AGENT + "WHERE agent.id = :agent_id", agent_id=agent_id)
    return _one(_agent, row)


def agent_heartbeat(connection: Connection, run_id: int) -> datetime | None:
    """When the agent that holds a run was last heard."""
    sql = "SELECT heartbeat_at FROM agent WHERE id = (SELECT agent_id FROM run WHERE id = :run_id)"
    return maybe_moment(scalar(connection, sql, run_id=run_id))


def agent_of(connection: Connection, run_id: int) -> AgentRow | None:
    """The agent that a run was given to last."""
    agent_id = scalar(connection, "SELECT agent_id FROM run WHERE id = :run_id", run_id=run_id)
    return None if agent_id is None else agent(connection, agent_id)


def is_superseded(connection: Connection, run_id: int) -> bool:
    """Whether an agent of the same sweep and host began after the one that holds a run was last heard."""
    sql = """
    SELECT EXISTS (SELECT 1 FROM run
    JOIN agent AS silent ON silent.id = run.agent_id
    JOIN agent AS newer ON newer.sweep_id = silent.sweep_id AND newer.host = silent.host
    WHERE run.id = :run_id AND newer.created_at > silent.heartbeat_at)
    """
    return bool(scalar(connection, sql, run_id=run_id))


def sweep_agents(connection: Connection, sweep_id: int) -> list[AgentRow]:
    """Agents of a sweep, oldest first."""
    return [
        _agent(row) for row in many(connection, _AGENT + "WHERE agent.sweep_id = :id ORDER BY agent.id", id=sweep_id)
    ]


def held_before(connection: Connection, agent_id: int) -> AgentRow | None:
    """The first held agent of an agent's sweep and host that was not heard since that one came, nor followed yet."""
    sql = (
        _AGENT
        + """
    JOIN agent AS newcomer ON newcomer.sweep_id = agent.sweep_id AND newcomer.host = agent.host
    WHERE newcomer.id = :id AND agent.hold <> '' AND agent.follower_id IS NULL AND agent.id <> newcomer.id
      AND agent.heartbeat_at <= newcomer.created_at
    ORDER BY agent.id LIMIT 1
    """
    )
    return _one(_agent, one(connection, sql, id=agent_id))


def follower(connection: Connection, agent_id: int) -> AgentRow | None:
    """The agent that took that one's place."""
    found = scalar(connection, "SELECT follower_id FROM agent WHERE id = :id", id=agent_id)
    return None if found is None else agent(connection, found)


def is_being_stopped(connection: Connection, run_id: int) -> bool:
    """Whether the agent that holds a run was told to stop."""
    sql = "SELECT hold FROM agent WHERE id = (SELECT agent_id FROM run WHERE id = :run_id)"
    return bool(scalar(connection, sql, run_id=run_id) == Hold.STOP)


def held_hosts(connection: Connection, sweep_id: int) -> list[str]:
    """Hosts whose agents a sweep holds, those too that join later."""
    sql = "SELECT host FROM held_host WHERE sweep_id = :id ORDER BY host"
    return [row["host"] for row in many(connection, sql, id=sweep_id)]


@lru_cache(maxsize=256)
def _parse_yaml(text: str) -> Any:
    return yaml.safe_load(text)


def _one(build: Callable[[RowMapping], T], row: RowMapping | None) -> T | None:
    return None if row is None else build(row)


def _user(row: RowMapping) -> UserRow:
    return UserRow(row["id"], row["username"], bool(row["admin"]))


def _project(row: RowMapping) -> ProjectRow:
    return ProjectRow(row["id"], row["entity"], row["name"], moment(row["created_at"]))


def _sweep(row: RowMapping) -> SweepRow:
    return SweepRow(
        id=row["id"],
        name=row["name"],
        entity=row["entity"],
        project=row["project_name"],
        config=_parse_yaml(row["config_yaml"]),
        config_yaml=row["config_yaml"],
        state=SweepState(row["state"]),
        display_name=row["display_name"],
        description=row["description"],
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
        user=row["username"],
        controller=json.loads(row["controller"] or "{}"),
        scheduler=json.loads(row["scheduler"] or "{}"),
    )


def _agent(row: RowMapping) -> AgentRow:
    return AgentRow(
        id=row["id"],
        name=row["name"],
        host=row["host"],
        sweep=row["sweep_name"],
        sweep_id=row["sweep_id"],
        state="FINISHED" if row["released"] else "RUNNING",
        created_at=moment(row["created_at"]),
        heartbeat_at=moment(row["heartbeat_at"]),
        run=row["run_name"],
        hold=Hold(row["hold"]),
        followed=row["follower_id"] is not None,
    )


def _run(row: RowMapping) -> StoredRun:
    return StoredRun.of({**row, "state": _STATES[row["state"]]})
