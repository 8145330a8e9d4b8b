"""Where a running hub is heard, left in its data folder for the commands of an administrator on the same machine.

The file is private and names the file of the admin token. A hub that was killed leaves it behind, so it counts only
while the folder's lock is held.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from prunefleet.infra.hub.users.auth import write_private

NAME = "hub.address"
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def local_url(host: str, port: int, scheme: str = "http") -> str:
    """The address of a hub that listens on `host`, from its own machine."""
    host = _WILDCARDS.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def write(folder: Path, url: str, token_file: Path, tls_cert: Path | None = None) -> None:
    """Tell where the hub is; `tls_cert` is the certificate it shows, where it has one."""
    told = {"url": url, "admin_token_file": str(token_file.absolute())}
    certificate = {"tls_cert": str(tls_cert.absolute())} if tls_cert else {}
    write_private(folder / NAME, json.dumps({**told, **certificate}).encode())


def read(folder: Path) -> Mapping[str, str] | None:
    """What a hub has told; None where none has, or it cannot be read."""
    try:
        told = json.loads((folder / NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) and {"url", "admin_token_file"} <= told.keys() else None


def remove(folder: Path) -> None:
    """The hub ends."""
    (folder / NAME).unlink(missing_ok=True)
