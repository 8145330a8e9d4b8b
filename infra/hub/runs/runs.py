"""What runs say of themselves: who they are, what they log, how they end."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from prunefleet.infra.hub.runs.lifecycle import blames_host, end, happen
from prunefleet.infra.hub.store import lines as store_lines
from prunefleet.infra.hub.store import statements
from prunefleet.infra.hub.store.database import Connection, execute, insert, scalar, update
from prunefleet.infra.hub.store.errors import Invalid, Missing
from prunefleet.infra.hub.store.lines import Stream
from prunefleet.infra.hub.store.rows import ProjectRow, RunRow, RunState, SweepRow, UserRow
from prunefleet.infra.hub.store.states import RunEvent
from prunefleet.infra.hub.store.stored_run import columns
from prunefleet.infra.hub.users import projects
from prunefleet.infra.hub.users.limits import Limits


@dataclass(frozen=True)
class RunChange:
    """What a client says of a run; None leaves what is stored. `config` is as W&B wraps it: `{"k": {"value": v}}`."""

    entity: str | None = None
    project: str | None = None
    name: str | None = None
    sweep: str | None = None
    state: str | None = None
    display_name: str | None = None
    notes: str | None = None
    tags: Sequence[str] | None = None
    group: str | None = None
    job_type: str | None = None
    host: str | None = None
    program: str | None = None
    commit: str | None = None
    repo: str | None = None
    config: Mapping[str, Any] | None = None
    summary: Mapping[str, Any] | None = None

    @property
    def starts(self) -> bool:
        """Whether this is `wandb.init`: it alone says where and as what the run runs; later calls bring the config."""
        return self.host is not None or self.program is not None

    def columns(self) -> dict[str, object]:
        """Return the columns to write: of all that was said but the run's address and state."""
        said = {each.name: getattr(self, each.name) for each in fields(self)}
        return columns({name: value for name, value in said.items() if value is not None and name not in _NOT_WRITTEN})


_NOT_WRITTEN = ("entity", "project", "name", "sweep", "state")


@dataclass(frozen=True)
class StreamPost:
    """One message of a run's stream: lines from an offset on, the latest summary, and how the process stands."""

    lines: Mapping[Stream, tuple[int, Sequence[str]]] = field(default_factory=dict)
    summary: Mapping[str, Any] | None = None
    preempting: bool = False
    complete: bool = False
    exit_code: int = 0


def begin(
    connection: Connection, user: UserRow, change: RunChange, run_id: int | None, now: float, limits: Limits
) -> tuple[RunRow, bool]:
    """A run speaks of itself: it is made, starts (again), or changes its configuration. Returns it, and if it is new.

    The client sends the run's id with its name when it resumes a run it has looked up, and the name alone otherwise.

    Raises `Invalid` for a name that cannot be, `Missing` for an unknown entity or sweep, `Denied` for a run too many.
    """
    if not change.name:
        raise Invalid("run id: got none; send the run's name")
    project = projects.ensure(connection, user, change.entity, change.project, now)
    found = statements.run_named(connection, project.entity, project.name, change.name)
    if found is None and run_id is None:
        limits.check_room(connection, project.id, user.id)
        return _create(connection, user, project, change, now), True
    found = found if run_id is None else reread(connection, run_id)
    assert found is not None
    update(connection, "run", found.id, heartbeat_at=now, **change.columns())
    happen(connection, found, RunEvent.STARTED if change.starts else RunEvent.STREAMED, now)
    return reread(connection, found.id), False


def revise(connection: Connection, run_id: int, change: RunChange) -> RunRow:
    """Change what is known of a run, whatever its state. Raises `Missing`."""
    reread(connection, run_id)
    update(connection, "run", run_id, **change.columns())
    return reread(connection, run_id)


def stream(connection: Connection, run: RunRow, post: StreamPost, now: float) -> RunRow:
    """Store a message of the run's stream. Sending it again changes nothing."""
    for name, (offset, lines) in post.lines.items():
        store_lines.put(connection, run.id, name, offset, lines)
    if post.summary is not None:
        update(connection, "run", run.id, summary=json.dumps(post.summary))
    update(connection, "run", run.id, heartbeat_at=now)
    if not post.complete:  # a repeated last message must not wake a run that has ended or was queued again
        happen(connection, run, RunEvent.STREAMED, now)
    if post.preempting:
        happen(connection, reread(connection, run.id), RunEvent.PREEMPTING, now)
    if post.complete:
        current = reread(connection, run.id)
        end(connection, current, post.exit_code, now, host_is_blamed=blames_host(sweep_of(connection, current)))
    return reread(connection, run.id)


def run_is_gone(entity: str, project: str, name: str) -> str:
    """The words for a run that is not there, or not for the one who asks."""
    return f"run: {entity}/{project}/{name} is not here; it may have been deleted"


def delete(connection: Connection, run_id: int) -> RunRow:
    """Forget a run and all it logged. Raises `Missing`."""
    found = reread(connection, run_id)
    execute(connection, "DELETE FROM run WHERE id = :run_id", run_id=run_id)
    return found


def create_in_sweep(
    connection: Connection,
    sweep: SweepRow,
    args: Mapping[str, Any],
    now: float,
    *,
    agent_id: int | None = None,
    why: Mapping[str, Any] | None = None,
    display_name: str | None = None,
) -> int:
    """A pending run for an agent, or where there is none for the sweep's queue; its id.

    `args` holds plain values, `why` the controller's reason.
    """
    owner = statements.user_named(connection, sweep.user)
    project = statements.project(connection, sweep.entity, sweep.project)
    assert owner is not None
    assert project is not None
    number = sum(statements.sweep_states(connection, sweep.id).values()) + 1
    return insert(
        connection,
        "run",
        project_id=project.id,
        name=new_name(connection, project.id),
        sweep_id=sweep.id,
        agent_id=agent_id,
        user_id=owner.id,
        state=RunState.PENDING.value,
        display_name=display_name or f"trial-{number}",
        config=json.dumps({key: {"value": value} for key, value in args.items()}),
        args=json.dumps(args),
        why=None if why is None else json.dumps(why),
        created_at=now,
        issued_at=None if agent_id is None else now,
    )


def reread(connection: Connection, run_id: int) -> RunRow:
    """The run as it is now. Raises `Missing`."""
    found = statements.run(connection, run_id)
    if found is None:
        raise Missing("run: it is not here; it may have been deleted")
    return found


def sweep_of(connection: Connection, run: RunRow) -> SweepRow | None:
    """The sweep a run belongs to."""
    return statements.sweep_named(connection, run.entity, run.project, run.sweep) if run.sweep else None


def new_name(connection: Connection, project_id: int) -> str:
    """Eight characters [a-z0-9], as W&B's run ids are, not yet taken in the project."""
    while True:
        name = random_name()
        sql = "SELECT 1 FROM run WHERE project_id = :project_id AND name = :name"
        if not scalar(connection, sql, project_id=project_id, name=name):
            return name


def random_name() -> str:
    """Eight random characters [a-z0-9]."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(8))


_ALPHABET = string.ascii_lowercase + string.digits


def _create(connection: Connection, user: UserRow, project: ProjectRow, change: RunChange, now: float) -> RunRow:
    projects.check_run_name(change.name or "")
    sweep = _sweep(connection, project, change.sweep)
    state = RunState.PENDING if change.state == RunState.PENDING else RunState.RUNNING
    columns = {"display_name": change.name, **change.columns()}
    run_id = insert(
        connection,
        "run",
        project_id=project.id,
        name=change.name,
        sweep_id=sweep.id if sweep else None,
        user_id=user.id,
        state=state.value,
        created_at=now,
        started_at=now if state is RunState.RUNNING else None,
        heartbeat_at=now,
        **columns,
    )
    return reread(connection, run_id)


def _sweep(connection: Connection, project: ProjectRow, name: str | None) -> SweepRow | None:
    if not name:
        return None
    found = statements.sweep_named(connection, project.entity, project.name, name)
    if found is None:
        raise Missing(
            f"sweep: got {name[:80]!r}, which is not in {project.entity}/{project.name}; unset WANDB_SWEEP_ID"
        )
    return found
