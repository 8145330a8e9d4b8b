"""Who asks: users, their keys, and signed tokens for addresses that carry no key.

Keys are random, so a keyed hash (BLAKE2b with the secret of the data folder) is enough to store: neither the
database alone nor the secret alone gives a key away. Tokens are HMAC-SHA256 over JSON with an expiry.
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
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.hub import store_rows
from infra.hub.errors import Conflict, Invalid
from infra.hub.rows import UserRow
from infra.hub.store import Connection, Store, insert

FIRST_USER = "local"
MIN_KEY = 40  # the client refuses shorter keys
_USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Auth:
    """Users and keys of one store."""

    def __init__(self, store: Store, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._secret = secret
        self._clock = clock
        self._known: dict[str, UserRow] = {}

    def user_of(self, key: str) -> UserRow | None:
        """The user who holds `key`, or None. Looked up by keyed hash, so timing tells nothing about stored keys."""
        digest = self._hash(key)
        if (known := self._known.get(digest)) is not None:
            return known
        with self._store.read() as connection:
            user = store_rows.user_with_key(connection, digest)
        if user is not None:
            self._known[digest] = user
        return user

    def users(self) -> list[UserRow]:
        """All users, oldest first."""
        with self._store.read() as connection:
            return store_rows.users(connection)

    def add_user(self, username: str, key: str | None = None, *, admin: bool = False) -> str:
        """Make a user, or give an existing one a further key; returns the key (made here if none is given).

        Raises `Invalid` for a bad name or a short key, `Conflict` for a key that another user holds.
        """
        if not _USERNAME.fullmatch(username):
            raise Invalid(f"username: got {username[:80]!r}; use 1 to 64 letters, digits, '_', '.', '-'")
        key = new_key() if key is None else key
        if len(key) < MIN_KEY or not key.isascii() or not key.isprintable():
            raise Invalid(f"api_key: got {len(key)} characters; use at least {MIN_KEY} printable ASCII characters")
        digest, now = self._hash(key), self._clock()

        def work(connection: Connection) -> None:
            owner = store_rows.user_with_key(connection, digest)
            if owner is not None and owner.username != username:
                raise Conflict("api_key: another user holds this key; choose another")
            user_id = _ensure_user(connection, username, admin, now)
            if owner is None:
                insert(connection, "api_key", hash=digest, user_id=user_id, created_at=now)

        self._store.write(work)
        return key

    def ensure_first_user(self) -> str | None:
        """On an empty store: make the first user, an administrator, and return the key. Later: None."""
        return None if self.users() else self.add_user(FIRST_USER, admin=True)

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

    def _hash(self, key: str) -> str:
        return hashlib.blake2b(key.encode(), key=self._secret, digest_size=32, person=b"prunefleet-key").hexdigest()

    def _mac(self, body: str) -> str:
        return _b64(hmac.digest(self._secret, b"token:" + body.encode(), "sha256"))


def new_key() -> str:
    """A key as W&B's look: 40 hexadecimal characters, 160 random bits."""
    return secrets.token_hex(20)


def load_secret(folder: Path) -> bytes:
    """The data folder's secret, made (mode 0600, on disk before it is used) when there is none."""
    path = folder / "secret"
    if not path.exists():
        write_private(path, secrets.token_bytes(32))
    return path.read_bytes()


def write_private(path: Path, content: bytes) -> None:
    """Put `content` at `path`, mode 0600, whole or not at all, even when the machine stops."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _ensure_user(connection: Connection, username: str, admin: bool, now: float) -> int:
    known = store_rows.user_named(connection, username)
    return known.id if known else insert(connection, "user", username=username, admin=int(admin), created_at=now)


def _b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
