"""`prunefleet hub users | keys | backup | restore | check | gc`: through the hub that holds the folder, or without."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.store.database import LABEL, Store, take_folder
from prunefleet.infra.hub.store.errors import FolderInUse, HubError, Missing, StartupError, Unavailable
from prunefleet.infra.hub.store.integrity import DATABASE
from prunefleet.infra.hub.upkeep import address_file
from prunefleet.infra.hub.upkeep.admin import Admin, told, told_backup
from prunefleet.infra.hub.upkeep.backup import restore
from prunefleet.infra.hub.upkeep.damage import check

Answer = Mapping[str, Any]
# These need neither the latest schema nor the store: an old folder is backed up before its upgrade.
_BESIDE = {
    "check": lambda data, given: told(check(data)),
    "backup": lambda data, given: told_backup(data, Path(given["target"])),
}


def perform(data: Path, operation: str, arguments: Mapping[str, Any]) -> Answer:
    """One operation of `prunefleet.infra.hub.upkeep.admin` on a data folder, whether or not a hub serves it.

    Raises `HubError`: `Missing` where the folder holds no hub, `FolderInUse` where its owner does not answer.
    """
    if not (data / DATABASE).is_file():
        raise Missing(
            f"data folder: {str(data)!r} holds no hub; name the folder that `prunefleet hub --data` was given"
        )
    if operation == "check" and (data / LABEL).is_file():
        return told(check(data))  # a backup: nobody writes to it, and it may lie where nobody can
    try:
        return _alone(data, operation, arguments)
    except FolderInUse:
        return _ask(data, operation, arguments)


def restored(source: Path, data: Path) -> Answer:
    """Make an empty folder the hub that was backed up."""
    answer = told(restore(source, data))
    return {**answer, "lines": [*answer["lines"], f"restored: {data}"]}


def show(answer: Answer) -> int:
    """Print an answer; returns the exit code, 1 where it tells problems."""
    for line in [*answer.get("lines", ()), *_users(answer.get("users")), *_keys(answer.get("keys"))]:
        print(line)
    if "api_key" in answer:
        print(answer["api_key"])
    return 1 if answer.get("problems") else 0


def exit_code(error: HubError) -> int:
    """1 where the disk or the hub failed, 2 for bad input."""
    return 1 if isinstance(error, Unavailable) or (error.status >= 500 and not isinstance(error, StartupError)) else 2


def _alone(data: Path, operation: str, arguments: Mapping[str, Any]) -> Answer:
    if operation in _BESIDE:
        with take_folder(data):
            return _BESIDE[operation](data, arguments)
    store = Store(data)
    try:
        return Admin(Hub(store)).perform(operation, arguments)
    finally:
        store.close()


def _ask(data: Path, operation: str, arguments: Mapping[str, Any]) -> Answer:
    """Through the hub's endpoint; a backup or a check may take its time, so nothing cuts it off."""
    known = address_file.read(data)
    if known is None:
        raise FolderInUse(
            f"data folder: {str(data)!r} is in use, and its hub does not answer yet; try again in a moment"
        )
    try:
        token = Path(known["admin_token_file"]).read_text(encoding="utf-8").strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        body = json.dumps(dict(arguments)).encode()
        request = urllib.request.Request(f"{known['url']}/admin/perform/{operation}", body, headers)  # noqa: S310 - ours
        with _opener(known).open(request) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        raise _refusal(error) from error
    except (OSError, ValueError) as error:
        raise Unavailable(f"hub: {known['url']} does not answer ({error}); try again, or stop the hub") from error


def _opener(known: Mapping[str, str]) -> urllib.request.OpenerDirector:
    """Straight to the hub: the token goes through no proxy, and its own certificate is trusted by its bytes.

    The hub is on this machine, so the name that the certificate was made for does not matter.
    """
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if "tls_cert" in known:
        context = ssl.create_default_context(cafile=known["tls_cert"])
        context.check_hostname = False
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)


def _refusal(error: urllib.error.HTTPError) -> HubError:
    with error:
        try:
            text = json.load(error)["error"]
        except (ValueError, KeyError):
            text = f"hub: answered {error.code}"
    refusal = HubError(str(text))
    refusal.status = error.code
    return refusal


def _users(users: list[Mapping[str, Any]] | None) -> list[str]:
    rows = [
        (
            each["username"],
            _role(each),
            each["keys"],
            each["runs"],
            _day(each["created_at"]),
            _day(each["last_used_at"]),
        )
        for each in users or ()
    ]
    return _table(("user", "role", "keys", "runs", "created", "last seen"), rows) if users is not None else []


def _role(user: Mapping[str, Any]) -> str:
    if user["removed_at"] is not None:
        return "removed"
    return "admin" if user["admin"] else "user"


def _keys(keys: list[Mapping[str, Any]] | None) -> list[str]:
    rows = [
        (each["id"], each["owner"], each["host"] or "-", _day(each["created_at"]), _day(each["last_used_at"]))
        for each in keys or ()
    ]
    return _table(("key", "owner", "host", "created", "last used"), rows) if keys is not None else []


def _day(seconds: float | None) -> str:
    return "never" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    lines = [tuple(str(cell) for cell in row) for row in [head, *rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
