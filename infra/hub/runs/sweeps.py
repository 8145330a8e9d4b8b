"""Sweeps: made, changed, deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunefleet.infra.hub.runs import run_queue, runs, sweep_config
from prunefleet.infra.hub.runs.lifecycle import request_stop, set_sweep_state
from prunefleet.infra.hub.store import statements
from prunefleet.infra.hub.store.database import Connection, execute, insert, update
from prunefleet.infra.hub.store.errors import Invalid, Missing
from prunefleet.infra.hub.store.rows import SweepRow, SweepState, UserRow
from prunefleet.infra.hub.users import projects


@dataclass(frozen=True)
class SweepChange:
    """What a client says of a sweep; None leaves what is stored.

    `controller` is the word of a local controller, `prior_runs` are ids of runs that the search is to know of.
    """

    entity: str | None = None
    project: str | None = None
    config_yaml: str | None = None
    state: str | None = None
    display_name: str | None = None
    description: str | None = None
    controller: Mapping[str, Any] | None = None
    prior_runs: Sequence[int] = ()

    def columns(self) -> dict[str, object]:
        """The columns to write."""
        said = {
            "config_yaml": self.config_yaml,
            "display_name": self.display_name,
            "description": self.description,
        }
        return {key: value for key, value in said.items() if value is not None}


def create(connection: Connection, user: UserRow, change: SweepChange, now: float) -> SweepRow:
    """A new sweep in state PENDING. Raises `Invalid` for a configuration no controller here can search."""
    if change.config_yaml is None:
        raise Invalid("config: got none; send the sweep's configuration")
    sweep_config.check(change.config_yaml)
    project = projects.ensure(connection, user, change.entity, change.project, now)
    sweep_id = insert(
        connection,
        "sweep",
        project_id=project.id,
        name=runs.random_name(),
        user_id=user.id,
        state=SweepState.PENDING.value,
        created_at=now,
        updated_at=now,
        **change.columns(),
    )
    return _follow(connection, sweep_id, change, now)


def revise(connection: Connection, sweep_id: int, change: SweepChange, now: float) -> SweepRow:
    """Change a sweep's configuration, names or state, and what it is told. Raises `Missing`, `Invalid`, `Conflict`."""
    sweep = reread(connection, sweep_id)
    if change.config_yaml is not None:
        sweep_config.check(change.config_yaml)
    update(connection, "sweep", sweep_id, updated_at=now, **change.columns())
    if change.state is not None:
        set_sweep_state(connection, sweep, _state(change.state), now)
    return _follow(connection, sweep_id, change, now)


def delete(connection: Connection, sweep_id: int, now: float) -> None:
    """Forget a sweep and its agents, and end what waits in its queue; its runs stay in the project.

    Agents learn it at their next heartbeat.
    """
    reread(connection, sweep_id)
    for run in statements.queued_runs(connection, sweep_id):
        request_stop(connection, run, now)
    execute(connection, "DELETE FROM sweep WHERE id = :sweep_id", sweep_id=sweep_id)


def reread(connection: Connection, sweep_id: int) -> SweepRow:
    """The sweep as it is now. Raises `Missing`."""
    found = statements.sweep(connection, sweep_id)
    if found is None:
        raise Missing("sweep: it is not here; it may have been deleted")
    return found


def _follow(connection: Connection, sweep_id: int, change: SweepChange, now: float) -> SweepRow:
    for run_id in change.prior_runs:
        execute(connection, "INSERT OR IGNORE INTO prior_run VALUES (:s, :r)", s=sweep_id, r=run_id)
    if change.controller is not None:
        run_queue.follow(connection, reread(connection, sweep_id), change.controller, now)
    return reread(connection, sweep_id)


def _state(text: str) -> SweepState:
    try:
        return SweepState(text.upper())
    except ValueError:
        raise Invalid(f"state: got {text[:40]!r}; use one of {', '.join(SweepState)}") from None
