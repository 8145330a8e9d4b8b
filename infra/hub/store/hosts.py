"""SQL for tokens that hosts join with, and for the keys they get."""

from __future__ import annotations

from dataclasses import dataclass

from prunefleet.infra.hub.store import statements
from prunefleet.infra.hub.store.database import Connection, execute, insert, one, scalar
from prunefleet.infra.hub.store.rows import SweepRow

KEPT_S = 86400.0  # for how long a token that is over can still be told from one that never was


@dataclass(frozen=True)
class TokenRow:
    """A token by its hash; times in seconds since 1970."""

    user_id: int
    owner: str
    sweep_id: int
    expires_at: float
    used_at: float | None


def add(connection: Connection, digest: str, user_id: int, sweep_id: int, now: float, expires_at: float) -> None:
    """Write a token down."""
    insert(
        connection,
        "join_token",
        hash=digest,
        user_id=user_id,
        sweep_id=sweep_id,
        created_at=now,
        expires_at=expires_at,
    )


def find(connection: Connection, digest: str) -> TokenRow | None:
    """The token of that hash."""
    sql = """
    SELECT user_id, username AS owner, sweep_id, expires_at, used_at
    FROM join_token JOIN user ON user.id = join_token.user_id WHERE hash = :hash
    """
    row = one(connection, sql, hash=digest)
    return None if row is None else TokenRow(**row)


def use(connection: Connection, digest: str, now: float) -> None:
    """Mark a token as used."""
    execute(connection, "UPDATE join_token SET used_at = :now WHERE hash = :hash", now=now, hash=digest)


def forget_old(connection: Connection, now: float) -> None:
    """Remove tokens that were over long ago."""
    execute(connection, "DELETE FROM join_token WHERE expires_at < :then", then=now - KEPT_S)


def forget_of(connection: Connection, username: str) -> None:
    """Remove a user's tokens that nobody has used yet."""
    sql = """
    DELETE FROM join_token WHERE used_at IS NULL AND user_id = (SELECT id FROM user WHERE username = :name)
    """
    execute(connection, sql, name=username)


def add_key(connection: Connection, digest: str, user_id: int, host: str, now: float) -> None:
    """Write down a host's key."""
    insert(connection, "api_key", hash=digest, user_id=user_id, created_at=now, host=host)


def drop_key(connection: Connection, digest: str) -> None:
    """Forget one key and nothing else: its owner's sign-ins go on."""
    execute(connection, "DELETE FROM api_key WHERE hash = :hash", hash=digest)


def host_of(connection: Connection, digest: str) -> str | None:
    """The host that joined with a key; None for a person's key and for none."""
    found = scalar(connection, "SELECT host FROM api_key WHERE hash = :hash", hash=digest)
    return None if found is None else str(found)


def sweep_of(connection: Connection, sweep_id: int) -> SweepRow:
    """The sweep that a token is for; its tokens go with it."""
    found = statements.sweep(connection, sweep_id)
    assert found is not None
    return found
