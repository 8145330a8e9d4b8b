"""What an administrator may do, by name: the same on a running hub, through its endpoint, and on a stopped one.

Each operation takes and returns what JSON holds; `lines` of an answer are what people are shown, `problems` count.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.store import keys
from prunefleet.infra.hub.store.database import Connection
from prunefleet.infra.hub.store.errors import Conflict, Invalid, Missing
from prunefleet.infra.hub.store.keys import ID_LENGTH, AccountRow, KeyRow
from prunefleet.infra.hub.upkeep import retention
from prunefleet.infra.hub.upkeep.backup import backup
from prunefleet.infra.hub.upkeep.damage import Report, check
from prunefleet.infra.hub.upkeep.retention import Wish
from prunefleet.infra.hub.users.host_keys import MINUTES

Arguments = Mapping[str, Any]
Answer = dict[str, Any]


class Admin:
    """The operations on one hub. Backup, check and gc go one at a time: a backup counts on files staying."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._turn = threading.Lock()
        self._operations: Mapping[str, Callable[[Arguments], Answer]] = {
            "users.list": self._users,
            "users.add": self._add_user,
            "users.remove": self._remove_user,
            "keys.list": self._keys,
            "keys.add": self._add_key,
            "keys.revoke": self._revoke_key,
            "invite": self._invite,
            "backup": self._backup,
            "check": self._check,
            "gc": self._gc,
        }

    def perform(self, operation: str, arguments: Arguments) -> Answer:
        """Do it. Raises `Missing` for an unknown operation, `Invalid` for arguments, and what the operation raises."""
        work = self._operations.get(operation)
        if work is None:
            raise Missing(f"operation: got {operation[:40]!r}; use one of {', '.join(self._operations)}")
        return work(arguments)

    def _users(self, _given: Arguments) -> Answer:
        self._hub.auth.note_uses(at_once=True)
        with self._hub.store.read() as connection:
            return {"users": [asdict(account) for account in keys.accounts(connection)]}

    def _add_user(self, given: Arguments) -> Answer:
        name = _text(given, "username")
        with self._hub.store.read() as connection:
            if keys.admitted(connection, name):
                raise Conflict(f"username: {name!r} is a user already; `keys add {name}` makes a further key")
        return {"api_key": self._hub.auth.add_user(name, admin=given.get("admin") is True)}

    def _remove_user(self, given: Arguments) -> Answer:
        name, now = _text(given, "username"), self._hub.clock()

        def work(connection: Connection) -> AccountRow:
            found = [each for each in keys.accounts(connection) if each.username == name]
            if not found or found[0].removed_at is not None:
                raise Missing(f"username: got {name[:80]!r}, who is no user here; `users list` tells who is")
            keys.remove_user(connection, found[0].id, now)
            return found[0]

        gone = self._hub.store.write(work)
        self._hub.auth.forget()
        return {"lines": [f"removed {name}: {gone.keys} keys revoked, {gone.runs} runs stay"]}

    def _keys(self, given: Arguments) -> Answer:
        owner = given.get("username")
        self._hub.auth.note_uses(at_once=True)
        with self._hub.store.read() as connection:
            found = [key for key in keys.keys(connection) if owner in (None, key.owner)]
        return {"keys": [_shown(key) for key in found]}

    def _add_key(self, given: Arguments) -> Answer:
        return {"api_key": self._hub.auth.add_key(_text(given, "username"))}

    def _revoke_key(self, given: Arguments) -> Answer:
        key_id, now = _text(given, "id"), self._hub.clock()

        def work(connection: Connection) -> KeyRow:
            found = keys.keys(connection, key_id) if len(key_id) >= ID_LENGTH else []
            if len(found) != 1:
                raise Missing(f"key: got {key_id[:80]!r}, which names {len(found)} keys; `keys list` tells the ids")
            keys.revoke(connection, found[0], now)
            return found[0]

        gone = self._hub.store.write(work)
        self._hub.auth.forget()
        return {"lines": [f"revoked {gone.id} of {gone.owner}"]}

    def _invite(self, given: Arguments) -> Answer:
        minutes = given.get("minutes", MINUTES)
        if isinstance(minutes, bool) or not isinstance(minutes, int | float):
            raise Invalid(f"minutes: got {minutes!r}; give a number")
        sweep = self._hub.host_keys.sweep_named(_text(given, "sweep"), self._hub.records.sweep)
        return asdict(self._hub.host_keys.invite(sweep, minutes))

    def _backup(self, given: Arguments) -> Answer:
        with self._alone():
            return told_backup(self._hub.store.folder, Path(_text(given, "target")))

    def _check(self, _given: Arguments) -> Answer:
        with self._alone():
            return told(check(self._hub.store.folder))

    def _gc(self, given: Arguments) -> Answer:
        days = given.get("runs_older_than")
        wish = Wish(
            given.get("dry_run") is True,
            _days(given, "abandoned_after", retention.ABANDONED_DAYS),
            None if days is None else _days(given, "runs_older_than", 0.0),
        )
        with self._alone():
            removed = retention.gc(self._hub.store, self._hub.files.blobs, wish, self._hub.clock())
        return {"lines": removed.lines, **asdict(removed)}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._turn.acquire(blocking=False):
            raise Conflict("hub: a backup, check or gc is under way; try again when it has ended")
        try:
            yield
        finally:
            self._turn.release()


def told(report: Report) -> Answer:
    """A check's report as an answer."""
    return {"lines": report.lines, "problems": len(report.problems)}


def told_backup(data: Path, target: Path) -> Answer:
    """Make a backup and answer what became of it."""
    answer = told(backup(data, target))
    return {**answer, "lines": [*answer["lines"], f"backup: {target}"]}


def _shown(key: KeyRow) -> Answer:
    return {
        "id": key.id,
        "owner": key.owner,
        "host": key.host,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
    }


def _text(given: Arguments, name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value:
        raise Invalid(f"{name}: got {value!r}; send a text")
    return value


def _days(given: Arguments, name: str, default: float) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e5:
        raise Invalid(f"{name}: got {value!r}; give days, 0 or more")
    return float(value)
