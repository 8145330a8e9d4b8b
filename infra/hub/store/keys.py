"""SQL for people and their keys, as an administrator sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prunefleet.infra.hub.store import hosts
from prunefleet.infra.hub.store.database import Connection, execute, execute_each, many, one, update

ID_LENGTH = 8  # characters of a key's hash that name it in lists
# Every table with a column that refers to users, those of tomorrow too.
_OWNED = """
SELECT t.name AS name, f."from" AS owner FROM sqlite_schema AS t, pragma_foreign_key_list(t.name) AS f
WHERE t.type = 'table' AND f."table" = 'user' AND t.name NOT IN ('api_key', 'join_token')
"""


@dataclass(frozen=True)
class KeyRow:
    """A key by its id (the beginning of its keyed hash), never the key itself; times in seconds since 1970.

    `host` is the one that joined with it; None where a person was given it.
    """

    hash: str
    owner: str
    created_at: float
    last_used_at: float | None
    host: str | None = None

    @property
    def id(self) -> str:
        """What names it in lists; nothing of the key can be told from it."""
        return self.hash[:ID_LENGTH]


@dataclass(frozen=True)
class AccountRow:
    """A user with what an administrator wants to know of them; times in seconds since 1970."""

    id: int
    username: str
    admin: bool
    created_at: float
    removed_at: float | None
    keys: int
    runs: int
    last_used_at: float | None


def accounts(connection: Connection) -> list[AccountRow]:
    """Everybody who is or was a user, oldest first."""
    sql = """
    SELECT id, username, admin, created_at, removed_at,
           (SELECT COUNT(*) FROM api_key WHERE user_id = user.id) AS keys,
           (SELECT COUNT(*) FROM run WHERE user_id = user.id) AS runs,
           (SELECT MAX(last_used_at) FROM api_key WHERE user_id = user.id) AS last_used_at
    FROM user ORDER BY id
    """
    return [AccountRow(**{**row, "admin": bool(row["admin"])}) for row in many(connection, sql)]


def keys(connection: Connection, hash_start: str = "") -> list[KeyRow]:
    """All keys, or those whose hash begins so, oldest first."""
    sql = """
    SELECT hash, username AS owner, api_key.created_at, last_used_at, host
    FROM api_key JOIN user ON user.id = api_key.user_id
    WHERE SUBSTR(hash, 1, LENGTH(:start)) = :start ORDER BY api_key.created_at, hash
    """
    return [KeyRow(**row) for row in many(connection, sql, start=hash_start)]


def note_uses(connection: Connection, uses: Mapping[str, float]) -> None:
    """Write down when keys (by hash) were last used."""
    sql = "UPDATE api_key SET last_used_at = :at WHERE hash = :hash"
    execute_each(connection, sql, [{"hash": digest, "at": at} for digest, at in uses.items()])


def revoke(connection: Connection, key: KeyRow, now: float) -> None:
    """Forget a key; its owner's sign-ins and open invitations end too, for one of them may have come by it.

    A host's key signs nobody in and invites nobody.
    """
    execute(connection, "DELETE FROM api_key WHERE hash = :hash", hash=key.hash)
    if key.host is not None:
        return
    hosts.forget_of(connection, key.owner)
    execute(connection, "UPDATE user SET sessions_end = :now WHERE username = :owner", now=now, owner=key.owner)


def remove_user(connection: Connection, user_id: int, now: float) -> None:
    """Forget a user's keys; who owns something is marked as removed, who owns nothing is forgotten."""
    execute(connection, "DELETE FROM api_key WHERE user_id = :id", id=user_id)
    execute(connection, "DELETE FROM join_token WHERE user_id = :id", id=user_id)
    if any(_owns(connection, user_id, row["name"], row["owner"]) for row in many(connection, _OWNED)):
        update(connection, "user", user_id, removed_at=now, sessions_end=now)
    else:
        execute(connection, "DELETE FROM user WHERE id = :id", id=user_id)


def take_back(connection: Connection, user_id: int, *, admin: bool) -> None:
    """Let a removed user be a user again."""
    update(connection, "user", user_id, removed_at=None, admin=int(admin))


def admitted(connection: Connection, username: str, since: float | None = None) -> bool:
    """Whether somebody is a user and, where `since` is given, a sign-in of that time is still good."""
    row = one(connection, "SELECT removed_at, sessions_end FROM user WHERE username = :name", name=username)
    if row is None or row["removed_at"] is not None:
        return False
    return since is None or row["sessions_end"] is None or since > row["sessions_end"]


def _owns(connection: Connection, user_id: int, table: str, column: str) -> bool:
    sql = f"SELECT 1 FROM {table} WHERE {column} = :id LIMIT 1"  # noqa: S608 - names of our schema
    return one(connection, sql, id=user_id) is not None
