"""W&B's storage ids: base64 of a kind and the store's own number, opaque to the client."""

from __future__ import annotations

import base64
import binascii
import re

from prunefleet.infra.hub.store.errors import Missing

_NUMBER = re.compile(r"[0-9]{1,18}")  # what the database can hold


def encode(kind: str, number: int) -> str:
    """`("Run", 7)` → an id the client can store, and hex-encode where it needs to."""
    return base64.b64encode(f"{kind}:{number}".encode()).decode()


def decode(kind: str, text: str) -> int:
    """The number in an id of that kind; raises `Missing` for anything else."""
    try:
        found, _, number = base64.b64decode(text, validate=True).decode().partition(":")
        if found == kind and _NUMBER.fullmatch(number):
            return int(number)
    except (binascii.Error, ValueError):
        pass
    raise Missing(f"{kind.lower()} id: got {text[:80]!r}, which this server did not hand out")
