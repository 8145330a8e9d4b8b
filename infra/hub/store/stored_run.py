"""A run as the store has it: its JSON is parsed when it is first asked for, and once.

Long lists are mostly counted, sorted and paged; parsing what nobody looks at cost most of their time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Self

from prunefleet.infra.hub.store.lazy import lazy
from prunefleet.infra.hub.store.rows import RunRow

_CLIENT = "_wandb"
_scan = json.JSONDecoder().raw_decode


TEXTS = ("config", "summary", "tags", "args", "why", "client_config")
"""Columns of JSON; `client_config` is the client's own part of the config, kept apart for it is long."""
TIMES = ("created_at", "started_at", "heartbeat_at", "finished_at", "stop_requested_at", "issued_at")
"""Columns of seconds since 1970."""


class StoredRun(RunRow):
    """A `RunRow` over one row of the store; `revision` grows with every change of any run.

    The row itself is the instance's dictionary: for a long list copying it would be most of the work. Columns of TEXTS
    and TIMES stand in it as `stored_<column>`.
    """

    revision: int

    def __init__(self, **row: Any) -> None:
        object.__setattr__(self, "__dict__", row)

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        """The run whose dictionary is this one from now on."""
        found = cls.__new__(cls)
        object.__setattr__(found, "__dict__", row)
        return found

    def __repr__(self) -> str:
        """Short, and another one after every change of the run: pages tell by it whether anything changed."""
        return f"StoredRun(id={self.id}, revision={self.revision}, agent={self.agent!r}, sweep={self.sweep!r})"

    def sharing(self, older: StoredRun) -> Self:
        """This row, with what `older` has parsed already wherever the text is the same."""
        mine, theirs = self.__dict__, older.__dict__
        for column, names in _PARSED.items():
            if mine[column] == theirs[column]:
                mine.update({name: theirs[name] for name in names if name in theirs})
        return self

    @lazy
    def created_at(self) -> datetime:
        """When it was made."""
        return moment(self.__dict__["stored_created_at"])

    @lazy
    def started_at(self) -> datetime | None:
        """When its process last started."""
        return maybe_moment(self.__dict__["stored_started_at"])

    @lazy
    def heartbeat_at(self) -> datetime | None:
        """When it was last heard of."""
        return maybe_moment(self.__dict__["stored_heartbeat_at"])

    @lazy
    def finished_at(self) -> datetime | None:
        """When it ended."""
        return maybe_moment(self.__dict__["stored_finished_at"])

    @lazy
    def stop_requested_at(self) -> datetime | None:
        """When it was asked to stop."""
        return maybe_moment(self.__dict__["stored_stop_requested_at"])

    @lazy
    def issued_at(self) -> datetime | None:
        """When an agent was last told to run it."""
        return maybe_moment(self.__dict__["stored_issued_at"])

    @lazy
    def _wrapped(self) -> Mapping[str, Any]:
        return _object(self.__dict__["stored_config"])

    @lazy
    def config(self) -> Mapping[str, Any]:
        """Plain values of the config."""
        return plain(self._wrapped)

    @lazy
    def raw_config(self) -> Mapping[str, Any]:
        """The config as the client sent it."""
        client = self.__dict__["stored_client_config"]
        return self._wrapped if client is None else {**self._wrapped, _CLIENT: _object(client)}

    @lazy
    def summary(self) -> Mapping[str, Any]:
        """The summary."""
        return _object(self.__dict__["stored_summary"])

    @lazy
    def tags(self) -> tuple[str, ...]:
        """The tags."""
        return tuple(json.loads(self.__dict__["stored_tags"]))

    @lazy
    def args(self) -> Mapping[str, Any] | None:
        """What the sweep gave."""
        return _maybe(self.__dict__["stored_args"])

    @lazy
    def why(self) -> Mapping[str, Any] | None:
        """The controller's reason."""
        return _maybe(self.__dict__["stored_why"])


_PARSED: Mapping[str, tuple[str, ...]] = {
    "stored_config": ("_wrapped", "config"),
    "stored_summary": ("summary",),
    "stored_tags": ("tags",),
    "stored_args": ("args",),
    "stored_why": ("why",),
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
    """A JSON object; without the search for space around it, a third of the time of so short a text."""
    found: Mapping[str, Any] = _scan(text)[0] if text[:1] == "{" else json.loads(text)
    return found


def _maybe(text: str | None) -> Mapping[str, Any] | None:
    return None if text is None else _object(text)
