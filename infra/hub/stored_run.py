"""A run as the store has it: its JSON is parsed when it is first asked for, and once.

Long lists are mostly counted, sorted and paged; parsing what nobody looks at cost most of their time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple, Self

from infra.hub.rows import RunRow

_CLIENT = "_wandb"


class Texts(NamedTuple):
    """The JSON of a run; `client_config` is the client's own part of the config, kept apart for it is long."""

    config: str
    summary: str
    tags: str
    args: str | None
    why: str | None
    client_config: str | None


class Times(NamedTuple):
    """When what happened to a run, in seconds since 1970."""

    created_at: float
    started_at: float | None
    heartbeat_at: float | None
    finished_at: float | None
    stop_requested_at: float | None
    issued_at: float | None


class StoredRun(RunRow):
    """A `RunRow` over the texts of one row of the store; `revision` grows with every change of any run."""

    texts: Texts
    times: Times
    revision: int

    def __init__(self, **columns: Any) -> None:
        self.__dict__.update(columns)  # frozen, and the fields that are missing here are the properties below

    def __repr__(self) -> str:
        """Short, and another one after every change of the run: pages tell by it whether anything changed."""
        return f"StoredRun(id={self.id}, revision={self.revision}, agent={self.agent!r}, sweep={self.sweep!r})"

    def sharing(self, older: StoredRun) -> Self:
        """This row, with what `older` has parsed already wherever the text is the same."""
        for field, same in zip(Texts._fields, map(_same, self.texts, older.texts), strict=True):
            for name in _PARSED[field] if same else ():
                if name in older.__dict__:
                    self.__dict__[name] = older.__dict__[name]
        return self

    @cached_property
    def created_at(self) -> datetime:
        """When it was made."""
        return moment(self.times.created_at)

    @cached_property
    def started_at(self) -> datetime | None:
        """When its process last started."""
        return maybe_moment(self.times.started_at)

    @cached_property
    def heartbeat_at(self) -> datetime | None:
        """When it was last heard of."""
        return maybe_moment(self.times.heartbeat_at)

    @cached_property
    def finished_at(self) -> datetime | None:
        """When it ended."""
        return maybe_moment(self.times.finished_at)

    @cached_property
    def stop_requested_at(self) -> datetime | None:
        """When it was asked to stop."""
        return maybe_moment(self.times.stop_requested_at)

    @cached_property
    def issued_at(self) -> datetime | None:
        """When an agent was last told to run it."""
        return maybe_moment(self.times.issued_at)

    @cached_property
    def _wrapped(self) -> Mapping[str, Any]:
        return _object(self.texts.config)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Plain values of the config."""
        return plain(self._wrapped)

    @cached_property
    def raw_config(self) -> Mapping[str, Any]:
        """The config as the client sent it."""
        client = self.texts.client_config
        return self._wrapped if client is None else {**self._wrapped, _CLIENT: _object(client)}

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """The summary."""
        return _object(self.texts.summary)

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """The tags."""
        return tuple(json.loads(self.texts.tags))

    @cached_property
    def args(self) -> Mapping[str, Any] | None:
        """What the sweep gave."""
        return _maybe(self.texts.args)

    @cached_property
    def why(self) -> Mapping[str, Any] | None:
        """The controller's reason."""
        return _maybe(self.texts.why)


_PARSED: Mapping[str, tuple[str, ...]] = {
    "config": ("_wrapped", "config"),
    "summary": ("summary",),
    "tags": ("tags",),
    "args": ("args",),
    "why": ("why",),
    "client_config": (),
}


def columns_of(config: Mapping[str, Any]) -> dict[str, object]:
    """The columns that hold a config as the client sends it."""
    client = config.get(_CLIENT)
    if not isinstance(client, dict):
        return {"config": json.dumps(config), "client_config": None}
    own = {key: value for key, value in config.items() if key != _CLIENT}
    return {"config": json.dumps(own), "client_config": json.dumps(client)}


def plain(wrapped: Mapping[str, Any]) -> dict[str, Any]:
    """`{"lr": {"value": 1}, "_wandb": …}` → `{"lr": 1}`."""
    values = {k: v["value"] if isinstance(v, dict) and "value" in v else v for k, v in wrapped.items()}
    return {key: value for key, value in values.items() if key not in (_CLIENT, "wandb_version")}


def moment(seconds: float) -> datetime:
    """Seconds since 1970 as an aware time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def maybe_moment(seconds: float | None) -> datetime | None:
    """The same for a time that may not have come."""
    return None if seconds is None else moment(seconds)


def _object(text: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(text)
    return found


def _maybe(text: str | None) -> Mapping[str, Any] | None:
    return None if text is None else _object(text)


def _same(one: str | None, other: str | None) -> bool:
    return one == other
