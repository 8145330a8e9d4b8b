"""A run as the store has it: its JSON is parsed when it is first asked for, and once.

Long lists are mostly counted, sorted and paged; parsing what nobody looks at cost most of their time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Self, get_type_hints

from prunefleet.infra.hub.store.lazy import lazy
from prunefleet.infra.hub.store.rows import RunRow

_CLIENT = "_wandb"
_scan = json.JSONDecoder().raw_decode

# A field of a `RunRow` is a column of `run` with the same name and is read by its type, but for these.
_OF_OTHER_TABLES: Mapping[str, str] = {
    "entity": "project.entity",
    "project": "project.name",
    "sweep": "sweep.name",
    "agent": "agent.name",
    "user": "user.username",
}
_RENAMED: Mapping[str, str] = {"group": "run_group", "commit": "commit_hash"}  # words of SQL
_DERIVED = ("raw_config",)
_TYPES: Mapping[str, object] = {
    name: kind for name, kind in get_type_hints(RunRow).items() if name not in (*_OF_OTHER_TABLES, *_DERIVED)
}
_IN_JSON = (Mapping[str, Any], Mapping[str, Any] | None, tuple[str, ...])
TIMES = tuple(name for name, kind in _TYPES.items() if kind in (datetime, datetime | None))
"""Columns of seconds since 1970."""
TEXTS = (
    *(name for name, kind in _TYPES.items() if kind in _IN_JSON),
    "client_config",
)
"""Columns of JSON; `client_config` is the client's own part of the config, kept apart for it is long."""


def selected() -> str:
    """Return what a query selects for a `StoredRun`, of `run` and the tables that it is joined with."""
    lazily = [f"run.{name} AS stored_{name}" for name in (*TEXTS, *TIMES)]
    plain_ones = [name for name in _TYPES if name not in (*TEXTS, *TIMES)]
    at_once = {name: f"run.{_RENAMED.get(name, name)}" for name in (*plain_ones, "revision")}
    return ", ".join([*lazily, *(f'{source} AS "{name}"' for name, source in {**at_once, **_OF_OTHER_TABLES}.items())])


def columns(values: Mapping[str, Any]) -> dict[str, object]:
    """Return the columns that hold these fields of a run; `config` is as the client sends it."""
    config = values.get("config")
    plain_ones = {
        _RENAMED.get(name, name): json.dumps(value) if name in TEXTS else value
        for name, value in values.items()
        if name != "config"
    }
    return plain_ones if config is None else plain_ones | _config_columns(config)


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


def _parsed_on_demand(name: str) -> lazy[Any]:
    """A field that is read from its column `stored_<name>` when it is first asked for."""
    in_text: Callable[[Any], Any] = _texts if _TYPES[name] == tuple[str, ...] else _maybe
    read = maybe_moment if name in TIMES else in_text
    found: lazy[Any] = lazy(lambda run: read(run.__dict__[f"stored_{name}"]))
    found.__set_name__(StoredRun, name)
    return found


_PARSED: Mapping[str, tuple[str, ...]] = {
    f"stored_{name}": ("_wrapped", "config") if name == "config" else (name,) for name in TEXTS if name in _TYPES
}


def _config_columns(config: Mapping[str, Any]) -> dict[str, object]:
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


def _texts(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


for _name in (*TEXTS, *TIMES):
    if _name in _TYPES and _name != "config":
        setattr(StoredRun, _name, _parsed_on_demand(_name))
