"""Sweeps: made, changed, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from infra.controller.base import SweepSpec
from infra.hub import projects, runs, store_rows
from infra.hub.errors import Invalid, Missing
from infra.hub.lifecycle import set_sweep_state
from infra.hub.rows import SweepRow, SweepState, UserRow
from infra.hub.store import Connection, execute, insert, update
from objective.errors import BadInput


@dataclass(frozen=True)
class SweepChange:
    """What a client says of a sweep; None leaves what is stored."""

    entity: str | None = None
    project: str | None = None
    config_yaml: str | None = None
    state: str | None = None
    display_name: str | None = None
    description: str | None = None
    controller: str | None = None
    scheduler: str | None = None
    prior_runs: str | None = None

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
    check_config(change.config_yaml)
    _refuse_unserved(change)
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
    return reread(connection, sweep_id)


def revise(connection: Connection, sweep_id: int, change: SweepChange, now: float) -> SweepRow:
    """Change a sweep's configuration, names or state. Raises `Missing`, `Invalid`, `Conflict`."""
    sweep = reread(connection, sweep_id)
    if change.config_yaml is not None:
        check_config(change.config_yaml)
    update(connection, "sweep", sweep_id, updated_at=now, **change.columns())
    if change.state is not None:
        set_sweep_state(connection, sweep, _state(change.state), now)
    return reread(connection, sweep_id)


def delete(connection: Connection, sweep_id: int) -> None:
    """Forget a sweep and its agents; its runs stay in the project. Agents learn it at their next heartbeat."""
    reread(connection, sweep_id)
    execute(connection, "DELETE FROM sweep WHERE id = :sweep_id", sweep_id=sweep_id)


def reread(connection: Connection, sweep_id: int) -> SweepRow:
    """The sweep as it is now. Raises `Missing`."""
    found = store_rows.sweep(connection, sweep_id)
    if found is None:
        raise Missing("sweep: it is not here; it may have been deleted")
    return found


def check_config(config_yaml: str) -> dict[str, Any]:
    """The parsed configuration. Raises `Invalid` naming the field that no controller here can serve."""
    try:
        config = yaml.safe_load(config_yaml)
    except yaml.YAMLError as error:
        raise Invalid(f"config: not YAML ({error})") from error
    if not isinstance(config, dict):
        raise Invalid("config: write a mapping with method and parameters")
    if "scheduler" in config or config.get("controller"):
        raise Invalid("config: got controller or scheduler, which this server does not serve; it searches by itself")
    try:
        SweepSpec.from_config("check", config)
    except BadInput as error:
        raise Invalid(str(error)) from error
    return config


def warnings(config: Mapping[str, Any]) -> list[str]:
    """What the configuration asks for that is taken and not acted on."""
    early = "early_terminate: not served here; every run goes on to its end"
    return [early] if "early_terminate" in config else []


def _refuse_unserved(change: SweepChange) -> None:
    if change.controller or change.scheduler:
        raise Invalid("controller: a local controller or scheduler is not served here; leave it out")
    if change.prior_runs:
        raise Invalid("prior_runs: not served here; start the sweep without --prior_run")


def _state(text: str) -> SweepState:
    try:
        return SweepState(text.upper())
    except ValueError:
        raise Invalid(f"state: got {text[:40]!r}; use one of {', '.join(SweepState)}") from None
