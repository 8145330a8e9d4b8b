"""Who asks: users, their keys, and signed tokens for addresses that carry no key.

Keys are random, so a keyed hash (BLAKE2b with the secret of the data folder) is enough to store: neither the
database alone nor the secret alone gives a key away. Tokens are HMAC-SHA256 over JSON with an expiry.

Comparing in constant time: a key is never compared with a stored key. It is hashed first, which takes the same time
for every key of its length, and the hash is looked up. How long that takes depends on how many leading characters two
hashes share, but without the secret nobody can choose a key by its hash, so a measured time says nothing of any key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prunefleet.infra.hub.store import keys, statements
from prunefleet.infra.hub.store.blobs import sync_folder
from prunefleet.infra.hub.store.database import Connection, Store, insert
from prunefleet.infra.hub.store.errors import Conflict, HubError, Invalid, Missing, StartupError
from prunefleet.infra.hub.store.rows import UserRow

FIRST_USER = "local"
SECRET = "secret"  # noqa: S105 - the name of its file
NOTE_EVERY_S = 60.0  # how often the last use of keys is written down
MIN_KEY = 40  # the client refuses shorter keys
_USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Auth:
    """Users and keys of one store."""

    def __init__(self, store: Store, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._secret = secret
        self._clock = clock
        self._guard = threading.Lock()
        self._known: dict[str, UserRow] = {}
        self._forgotten = 0
        self._used: dict[str, float] = {}
        self._noted: dict[str, float] = {}
        self._noted_at = 0.0

    @classmethod
    def of(cls, store: Store, clock: Callable[[], float] = time.time) -> Auth:
        """Users and keys with the secret of the store's folder. Raises `StartupError` where that was lost."""
        with store.read() as connection:
            known = bool(keys.keys(connection))
        if known and not (store.folder / SECRET).exists():
            raise StartupError(
                f"data folder: {str(store.folder / SECRET)!r} is gone, and no key is known without it; put it back "
                "(a backup has it), or put 32 random bytes there and make new keys (`prunefleet hub keys add`)"
            )
        return cls(store, load_secret(store.folder), clock)

    def user_of(self, key: str) -> UserRow | None:
        """The user who holds `key`, or None. Looked up by keyed hash, so timing tells nothing about stored keys."""
        digest = self.digest(key)
        user = self._known.get(digest) or self._look_up(digest)
        if user is not None:
            self._used[digest] = self._clock()
        return user

    def _look_up(self, digest: str) -> UserRow | None:
        forgotten = self._forgotten
        with self._store.read() as connection:
            user = statements.user_with_key(connection, digest)
        with self._guard:
            if user is not None and forgotten == self._forgotten:  # else it may have been revoked meanwhile
                self._known[digest] = user
        return user

    def forget(self) -> None:
        """After a key was revoked: ask the store about every key again."""
        with self._guard:
            self._forgotten += 1
            self._known.clear()

    def note_uses(self, *, at_once: bool = False) -> None:
        """Write down when keys were last used, at most once a minute unless `at_once`; requests never wait for it."""
        now = self._clock()
        if not at_once and now - self._noted_at < NOTE_EVERY_S:
            return
        self._noted_at = now
        fresh = {digest: at for digest, at in self._used.copy().items() if at != self._noted.get(digest)}
        if fresh:
            self._store.write(lambda c: keys.note_uses(c, fresh))
            self._noted.update(fresh)

    def users(self) -> list[UserRow]:
        """All users who may come in, oldest first."""
        with self._store.read() as connection:
            return [user for user in statements.users(connection) if keys.admitted(connection, user.username)]

    def has_keys(self) -> bool:
        """Whether anybody can come in."""
        with self._store.read() as connection:
            return bool(keys.keys(connection))

    def user_named(self, username: str) -> UserRow | None:
        """The user of that name, if they may come in."""
        with self._store.read() as connection:
            return statements.user_named(connection, username) if keys.admitted(connection, username) else None

    def ticket_for(self, username: str, ttl_s: float = 600.0) -> str:
        """A short-lived word that signs a user in to the pages. Raises `Missing` for an unknown user."""
        if self.user_named(username) is None:
            raise Missing(f"username: got {username[:80]!r}, which is not here; make the user first")
        return self.ticket("ticket", username, ttl_s)

    def user_of_ticket(self, ticket: str) -> str | None:
        """For whom a ticket was made, while it lasts."""
        return self.admitted(ticket, "ticket")

    def session_of(self, username: str, ttl_s: float) -> str:
        """A signed cookie for a user."""
        return self.ticket("session", username, ttl_s)

    def user_of_session(self, cookie: str) -> str | None:
        """Whose cookie this is, while it lasts."""
        return self.admitted(cookie, "session")

    def add_user(self, username: str, key: str | None = None, *, admin: bool = False) -> str:
        """Make a user, or give an existing one a further key; returns the key (made here if none is given).

        Raises `Invalid` for a bad name or a short key, `Conflict` for a key that another user holds.
        """
        if not _USERNAME.fullmatch(username):
            raise Invalid(f"username: got {username[:80]!r}; use 1 to 64 letters, digits, '_', '.', '-'")
        key = new_key() if key is None else key
        if len(key) < MIN_KEY or not key.isascii() or not key.isprintable():
            raise Invalid(f"api_key: got {len(key)} characters; use at least {MIN_KEY} printable ASCII characters")
        digest, now = self.digest(key), self._clock()

        def work(connection: Connection) -> None:
            owner = statements.user_with_key(connection, digest)
            if owner is not None and owner.username != username:
                raise Conflict("api_key: another user holds this key; choose another")
            user_id = _ensure_user(connection, username, admin, now)
            if owner is None:
                insert(connection, "api_key", hash=digest, user_id=user_id, created_at=now)

        self._store.write(work)
        self.forget()
        return key

    def add_key(self, username: str) -> str:
        """A further key for a user; returns it. Raises `Missing` for somebody who is no user."""
        if username not in {user.username for user in self.users()}:
            raise Missing(f"username: got {username[:80]!r}, who is no user here; add the user first")
        return self.add_user(username)

    def ensure_first_user(self) -> str | None:
        """On an empty store: make the first user, an administrator, and return the key. Later: None."""
        return None if self.users() else self.add_user(FIRST_USER, admin=True)

    def ticket(self, purpose: str, username: str, ttl_s: float) -> str:
        """A token that lets a user in for one purpose, until it expires or the user's sign-ins are ended."""
        return self.sign({purpose: username, "at": self._clock()}, ttl_s)

    def admitted(self, token: str, purpose: str) -> str | None:
        """For whom a ticket was made, while it and the user are good."""
        try:
            payload = self.unsign(token)
        except HubError:
            return None
        username = payload.get(purpose) if isinstance(payload, dict) else None
        if not isinstance(username, str):
            return None
        with self._store.read() as connection:
            good = keys.admitted(connection, username, payload.get("at", 0.0))
        return username if good else None

    def sign(self, payload: object, ttl_s: float) -> str:
        """A token for `payload` (anything JSON holds) that `unsign` accepts for `ttl_s` seconds."""
        body = _b64(json.dumps([self._clock() + ttl_s, payload]).encode())
        return f"{body}.{self._mac(body)}"

    def unsign(self, token: str) -> Any:
        """The payload of a token; raises `Invalid` when it was not signed here or has expired."""
        body, _, mac = token.partition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(body).encode()):
            raise Invalid("token: not signed by this hub; ask for a new address")
        try:
            expires, payload = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (ValueError, binascii.Error) as error:  # pragma: no cover - signed here, so well formed
            raise Invalid("token: cannot be read") from error
        if self._clock() > expires:
            raise Invalid("token: expired; ask for a new address")
        return payload

    def digest(self, key: str) -> str:
        """What is kept of a key or a join token: without the secret nobody can tell it, or choose a key by it."""
        return hashlib.blake2b(key.encode(), key=self._secret, digest_size=32, person=b"prunefleet-key").hexdigest()

    def _mac(self, body: str) -> str:
        return _b64(hmac.digest(self._secret, b"token:" + body.encode(), "sha256"))


def new_key() -> str:
    """A key as W&B's look: 40 hexadecimal characters, 160 random bits."""
    return secrets.token_hex(20)


def load_secret(folder: Path) -> bytes:
    """The data folder's secret, made (mode 0600, on disk before it is used) when there is none."""
    path = folder / SECRET
    if not path.exists():
        write_private(path, secrets.token_bytes(32))
    return path.read_bytes()


def write_private(path: Path, content: bytes) -> None:
    """Put `content` at `path`, mode 0600, whole or not at all, even when the machine stops."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def _ensure_user(connection: Connection, username: str, admin: bool, now: float) -> int:
    known = statements.user_named(connection, username)
    if known is None:
        return insert(connection, "user", username=username, admin=int(admin), created_at=now)
    if not keys.admitted(connection, username):
        keys.take_back(connection, known.id, admin=admin)
    return known.id


def _b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
