"""Lists of runs that stay cheap when they are long: narrowed, counted and paged by SQL, or kept while nothing changes.

A sweep's runs are asked for again and again, by the suggester, by open pages and by clients that watch. They are kept
in memory, and what changed since is fetched by its revision; so a look at 10,000 runs costs what changed in them.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from prunefleet.infra.hub.store import statements
from prunefleet.infra.hub.store.database import Store, many, scalar
from prunefleet.infra.hub.store.rows import RunRow
from prunefleet.infra.hub.store.stored_run import StoredRun

T = TypeVar("T")
Version = tuple[int, int]
MOST_ROWS = 20_000  # kept in all, some 8 kB each
MOST_DERIVED = 1024
Allowed = Mapping[str, Sequence[str]]  # column → the values it may have
COLUMNS: Mapping[str, str] = {
    "name": "run.name IN (SELECT value FROM json_each(:name))",
    "state": "run.state IN (SELECT value FROM json_each(:state))",
    "display_name": "run.display_name IN (SELECT value FROM json_each(:display_name))",
    "group": "run.run_group IN (SELECT value FROM json_each(:group))",
    "job_type": "run.job_type IN (SELECT value FROM json_each(:job_type))",
    "sweep": """run.sweep_id IN (SELECT sweep.id FROM sweep WHERE sweep.project_id = :project_id
                AND sweep.name IN (SELECT value FROM json_each(:sweep)))""",
}


@dataclass
class _Kept:
    """A sweep's runs by id, and the version they were read at."""

    runs: dict[int, StoredRun] = field(default_factory=dict)
    version: Version = (0, 0)


class Listing:
    """Lists of one store's runs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._derived: OrderedDict[tuple[int, Hashable], tuple[Version, Any]] = OrderedDict()

    def sweep_runs(self, sweep_id: int) -> list[RunRow]:
        """A sweep's runs by creation; what did not change since the last call is the same object."""
        with self._lock, self._store.read() as connection:
            kept = self._kept.setdefault(sweep_id, _Kept())
            self._kept.move_to_end(sweep_id)
            now = statements.sweep_version(connection, sweep_id)
            if now != kept.version:
                newer = statements.sweep_runs(connection, sweep_id, newer_than=kept.version[1])
                self._renew(kept, newer)
                if len(kept.runs) != now[0]:  # some are gone: start again
                    kept.runs = {run.id: run for run in statements.sweep_runs(connection, sweep_id)}
                kept.version = now
            self._make_room()
            return list(kept.runs.values())

    def sweep_version(self, sweep_id: int) -> Version:
        """Two numbers that change whenever a run of the sweep does: how many there are, and their last revision."""
        with self._store.read() as connection:
            return statements.sweep_version(connection, sweep_id)

    def derived(self, sweep_id: int, key: Hashable, make: Callable[[Sequence[RunRow]], T]) -> T:
        """What `make` makes of a sweep's runs, made again only when one of them changed; `key` names what it is."""
        version = self.sweep_version(sweep_id)
        with self._lock:
            known: tuple[Version, T] | None = self._derived.get((sweep_id, key))
        if known is not None and known[0] == version:
            return known[1]
        made = make(self.sweep_runs(sweep_id))
        with self._lock:
            self._derived[sweep_id, key] = (version, made)
            self._derived.move_to_end((sweep_id, key))
            while len(self._derived) > MOST_DERIVED:
                self._derived.popitem(last=False)
        return made

    def runs(self, project_id: int, allowed: Allowed, newest_first: bool = False) -> RunPages:
        """A project's runs by creation whose columns (of `COLUMNS`) have one of the values allowed."""
        return RunPages(self._store, project_id, allowed, newest_first)

    def loose(self, project_id: int, most: int) -> list[RunRow]:
        """A project's newest runs that belong to no sweep, newest first."""
        with self._store.read() as connection:
            return statements.loose_runs(connection, project_id, most)

    def number_in_sweep(self, run_id: int) -> int:
        """The how-manieth run of its sweep a run is, from 1."""
        with self._store.read() as connection:
            return statements.number_in_sweep(connection, run_id)

    def _renew(self, kept: _Kept, newer: Sequence[StoredRun]) -> None:
        for run in newer:
            older = kept.runs.get(run.id)
            kept.runs[run.id] = run if older is None else run.sharing(older)

    def _make_room(self) -> None:
        while len(self._kept) > 1 and sum(len(kept.runs) for kept in self._kept.values()) > MOST_ROWS:
            self._kept.popitem(last=False)


class RunPages(Sequence[RunRow]):
    """Runs as a sequence whose length and slices are queries; two of them may see two states of the store."""

    def __init__(self, store: Store, project_id: int, allowed: Allowed, newest_first: bool) -> None:
        self._store = store
        self._values = {"project_id": project_id} | {name: json.dumps(list(each)) for name, each in allowed.items()}
        self._where = " AND ".join(["run.project_id = :project_id", *(COLUMNS[name] for name in allowed)])
        self._order = "run.created_at DESC, run.id" if newest_first else "run.created_at, run.id"

    def __len__(self) -> int:
        with self._store.read() as connection:
            return int(scalar(connection, f"SELECT COUNT(*) FROM run WHERE {self._where}", **self._values))  # noqa: S608

    def __iter__(self) -> Iterator[RunRow]:
        return iter(self._slice(0, -1))

    @overload
    def __getitem__(self, place: int) -> RunRow: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[RunRow]: ...
    def __getitem__(self, place: int | slice) -> RunRow | Sequence[RunRow]:
        if isinstance(place, int):
            return self._slice(place, 1)[0]
        start, stop, _step = place.indices(1 << 62)
        return self._slice(start, max(0, stop - start))

    def _slice(self, start: int, count: int) -> list[RunRow]:
        sql = f"SELECT run.id FROM run WHERE {self._where} ORDER BY {self._order} LIMIT :count OFFSET :start"  # noqa: S608
        with self._store.read() as connection:
            ids = [row["id"] for row in many(connection, sql, **self._values, start=start, count=count)]
            return statements.runs_by_id(connection, ids)
