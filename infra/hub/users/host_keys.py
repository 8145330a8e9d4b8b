"""How a host joins: a token for one user and one sweep is exchanged, once and soon, for a key of the host's own.

The token is kept as a keyed hash and marked as used in the transaction that makes the key, so neither two hosts at the
same time nor a restart get two keys out of it. A host's key is less than a person's: it signs nobody in to the pages,
makes no tokens, and sees its user's own entity alone, even where that user is an administrator.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from prunefleet.infra.hub.store import hosts, keys
from prunefleet.infra.hub.store.database import Connection, Store
from prunefleet.infra.hub.store.errors import Conflict, Denied, Invalid, Missing, Unauthorized
from prunefleet.infra.hub.store.rows import SweepRow
from prunefleet.infra.hub.users.auth import Auth, new_key
from prunefleet.objective.devices import device_of

MINUTES, MOST_MINUTES = 15.0, 24 * 60.0
PREFIX = "join-"  # tells a token from a key, which is hexadecimal
LONGEST_HOST = 64
AGAIN = "ask for another on the sweep's page, or with `prunefleet invite`"


@dataclass(frozen=True)
class Invitation:
    """A token, told once; for which sweep, what its hosts need to have installed, and until when it is good."""

    token: str
    sweep: str
    extra: str
    expires_at: float


@dataclass(frozen=True)
class JoinedHost:
    """What a host gets for its token: a key of its own, whose it is, and for which sweep."""

    api_key: str
    username: str
    sweep: str
    extra: str


def path_of(sweep: SweepRow) -> str:
    """The sweep as agents name it: entity/project/id."""
    return f"{sweep.entity}/{sweep.project}/{sweep.name}"


def extra_of(sweep: SweepRow) -> str:
    """What a host of the sweep installs: `measure` for a device's queue, else `trial`."""
    return "measure" if device_of(str(sweep.config.get("name", ""))) else "trial"


class HostKeys:
    """Tokens and hosts' keys of one hub."""

    def __init__(self, store: Store, auth: Auth, clock: Callable[[], float]) -> None:
        self._store, self._auth, self._clock = store, auth, clock

    def invite(self, sweep: SweepRow, minutes: float = MINUTES) -> Invitation:
        """A token for a sweep; its key will be the owner's, whoever asks, so that it opens no more than it must.

        Raises `Invalid` for a time that is none, `Conflict` for a sweep whose owner is no user.
        """
        if not 0 < minutes <= MOST_MINUTES:
            raise Invalid(f"minutes: got {minutes:g}; give more than 0, at most {MOST_MINUTES:g}")
        token, now = PREFIX + secrets.token_hex(20), self._clock()
        digest, expires = self._auth.digest(token), now + 60 * minutes
        owner = self._auth.user_named(sweep.entity)
        if owner is None:
            raise Conflict(
                f"sweep: {sweep.entity!r}, whose it is, is no user here; `prunefleet hub users add` makes one"
            )

        def work(connection: Connection) -> None:
            hosts.forget_old(connection, now)
            hosts.add(connection, digest, owner.id, sweep.id, now, expires)

        self._store.write(work)
        return Invitation(token, path_of(sweep), extra_of(sweep), expires)

    def accept(self, token: str, host: str) -> JoinedHost:
        """A new key for a token. Raises `Unauthorized` for one that is unknown, used or expired: one line each."""
        digest, key, now = self._auth.digest(token), new_key(), self._clock()
        named = "".join(each for each in host if each.isprintable())[:LONGEST_HOST] or "?"

        def work(connection: Connection) -> JoinedHost:
            found = hosts.find(connection, digest)
            if found is None or not keys.admitted(connection, found.owner):
                raise Unauthorized(f"token: this hub does not know it; {AGAIN}")
            if found.used_at is not None:
                raise Unauthorized(f"token: it was used before, and is good for one host alone; {AGAIN}")
            if now > found.expires_at:
                raise Unauthorized(f"token: it has expired; {AGAIN}")
            hosts.use(connection, digest, now)
            hosts.add_key(connection, self._auth.digest(key), found.user_id, named, now)
            sweep = hosts.sweep_of(connection, found.sweep_id)
            return JoinedHost(key, found.owner, path_of(sweep), extra_of(sweep))

        return self._store.write(work)

    def is_hosts(self, key: str) -> bool:
        """Whether a key is a host's, not a person's."""
        with self._store.read() as connection:
            return hosts.host_of(connection, self._auth.digest(key)) is not None

    def person_of(self, key: str) -> str | None:
        """Return whose key this is; nobody's where it is a host's, which signs nobody in."""
        user = self._auth.user_of(key)
        return None if user is None or self.is_hosts(key) else user.username

    def give_up(self, key: str) -> str:
        """Revoke a host's key because its holder asks for it; returns the host's name.

        Raises `Unauthorized` for an unknown key, `Denied` for a person's, which is revoked by an administrator.
        """
        digest = self._auth.digest(key)

        def work(connection: Connection) -> str:
            known = keys.keys(connection, digest)
            if not known:
                raise Unauthorized("key: this hub does not know it; it may have been revoked before")
            if known[0].host is None:
                raise Denied("key: it was given to a person, not to a host that joined; `prunefleet hub keys revoke`")
            hosts.drop_key(connection, digest)
            return known[0].host

        host = self._store.write(work)
        self._auth.forget()
        return host

    def sweep_named(self, path: str, find: Callable[[str, str, str], SweepRow | None]) -> SweepRow:
        """The sweep at entity/project/id. Raises `Missing`, the same for what is not there and what may not be seen."""
        parts = path.split("/")
        found = find(*parts) if len(parts) == 3 else None
        if found is None:
            raise Missing(f"sweep: got {path[:120]!r}, which is not here; give ENTITY/PROJECT/SWEEP as its page does")
        return found
