"""What the hub hands out: one frozen row per project, sweep, run, agent and user.

Times are aware and in UTC; `id` is the store's own key, `name` is what a user of W&B sees in an address.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class RunState(StrEnum):
    """Where a run stands, in W&B's lower-case words."""

    PENDING = "pending"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    KILLED = "killed"
    CRASHED = "crashed"
    PREEMPTING = "preempting"
    PREEMPTED = "preempted"


class SweepState(StrEnum):
    """Where a sweep stands, in W&B's upper-case words."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    CANCELED = "CANCELED"
    FINISHED = "FINISHED"


class Hold(StrEnum):
    """What an agent was asked; the database has these words."""

    NONE = ""
    PAUSE = "pause"
    DRAIN = "drain"
    STOP = "stop"


@dataclass(frozen=True)
class UserRow:
    """Somebody who holds a key; `username` is also the entity that owns their projects."""

    id: int
    username: str
    admin: bool


@dataclass(frozen=True)
class ProjectRow:
    """A named collection of sweeps and runs of one entity."""

    id: int
    entity: str
    name: str
    created_at: datetime


@dataclass(frozen=True)
class SweepRow:
    """A sweep; `config` is the parsed `config_yaml`, as the user wrote it.

    `controller` is what a local controller last asked for, `scheduler` what the hub answered it.
    """

    id: int
    name: str
    entity: str
    project: str
    config: Mapping[str, Any]
    config_yaml: str
    state: SweepState
    display_name: str | None
    description: str | None
    created_at: datetime
    updated_at: datetime
    user: str
    controller: Mapping[str, Any] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRow:
    """A run; `config` and `summary` hold plain values, not W&B's `{"value": …}` wrappers.

    `args` is what its sweep gave it and `why` the controller's reason for that, `retries` how often a host's failure
    re-queued the run, `history_lines` how many rows of history are stored, `stop_reason` why it was asked to stop where
    no person did.
    """

    id: int
    name: str
    entity: str
    project: str
    sweep: str | None
    agent: str | None
    state: RunState
    display_name: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    host: str | None
    created_at: datetime
    started_at: datetime | None
    heartbeat_at: datetime | None
    finished_at: datetime | None
    exit_code: int | None
    retries: int
    why: Mapping[str, Any] | None
    tags: tuple[str, ...] = ()
    notes: str | None = None
    group: str | None = None
    job_type: str | None = None
    user: str = ""
    history_lines: int = 0
    program: str | None = None
    commit: str | None = None
    repo: str | None = None
    stop_requested_at: datetime | None = None
    stop_reason: str | None = None
    issued_at: datetime | None = None
    args: Mapping[str, Any] | None = None
    raw_config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unissued(self) -> bool:
        """Whether it waits for its first agent: queued by somebody, or made by hand to be started some day."""
        return self.state is RunState.PENDING and self.issued_at is None


@dataclass(frozen=True)
class AgentRow:
    """A `wandb agent` of a sweep; `run` is the live run it holds, if any.

    `state` is FINISHED once it was told to leave, and `followed` says whether another has taken its place and its hold.
    """

    id: int
    name: str
    host: str
    sweep: str
    sweep_id: int
    state: str
    created_at: datetime
    heartbeat_at: datetime
    run: str | None
    hold: Hold = Hold.NONE
    followed: bool = False

    @property
    def left(self) -> bool:
        """Whether it was told to leave."""
        return self.state == "FINISHED"
