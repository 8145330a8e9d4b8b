"""Backup of a data folder, also while agents log, and its way back.

The database goes first, in one consistent state; then every file that this state refers to. Files are written before
the rows that refer to them and are never changed, and `gc`, which alone removes them, waits meanwhile: so each one is
there. Files first would miss those uploaded between. A backup is a folder with `hub.db`, `blobs/`, `secret` (or keys
would not be known again) and `backup.json`, which is written last. It holds all that its hub knows: keep it private.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from prunefleet.infra.hub.store import integrity
from prunefleet.infra.hub.store.blobs import place, sync_folder
from prunefleet.infra.hub.store.database import LABEL, RESTORING, newest_migration, take_folder
from prunefleet.infra.hub.store.errors import Conflict, Invalid, Unavailable
from prunefleet.infra.hub.upkeep.damage import CHUNK, Report, check
from prunefleet.infra.hub.users.auth import SECRET, write_private

_COPY = "a copy of a hub's data folder"


def backup(data: Path, target: Path) -> Report:
    """Write a backup of the hub in `data` to the new folder `target`, and check it.

    Files that are missing or damaged in the hub are problems of the report; the rest is saved all the same. A damaged
    database, a full disk or a `target` that exists ends it, and nothing is left at `target`. Raises `Conflict`,
    `Invalid`, `Missing`, `Unavailable`.
    """
    _check_target(data, target)
    draft = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    with _disk(draft):
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True, mode=0o700)
            report = _fill(data, draft)
            _take_place(draft, target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return report


def restore(source: Path, data: Path) -> Report:
    """Make the empty folder `data` the hub that was backed up in `source`; the admin token is made anew at its start.

    Cut off in the middle, it can be run again, and no hub starts on the folder before. Raises `Conflict` for a folder
    that holds anything, `Invalid` for a source that is no backup, of a newer version, or with a damaged database.
    """
    report = _check_source(source)
    lock = take_folder(data)
    try:
        with _disk(data):
            _check_empty(data)
            write_private(data / RESTORING, str(source.absolute()).encode())
            with integrity.opened(source) as connection:
                wanted = integrity.references(connection)
            _copy_files(source / "blobs", data / "blobs", wanted)
            write_private(data / "secret", (source / SECRET).read_bytes())
            _copy_whole(source / integrity.DATABASE, data / integrity.DATABASE)
            (data / RESTORING).unlink()
            sync_folder(data)
    finally:
        lock.close()
    return report


@dataclass(frozen=True)
class _Label:
    what: str
    made_at: float
    migration: int
    files: int
    bytes: int


def _fill(data: Path, draft: Path) -> Report:
    integrity.snapshot(data, draft / integrity.DATABASE)
    with integrity.opened(draft) as connection:
        wrong, wanted = integrity.problems(connection), integrity.references(connection)
    if wrong:
        raise Unavailable(f"{wrong[0]}; no backup was made of a damaged database: run `prunefleet hub check`")
    (draft / integrity.DATABASE).chmod(0o600)
    _sync_file(draft / integrity.DATABASE)
    _copy_files(data / "blobs", draft / "blobs", wanted)
    write_private(draft / "secret", (data / SECRET).read_bytes())
    report = check(draft)
    label = _Label(_COPY, time.time(), report.migration, report.files, report.bytes)
    write_private(draft / LABEL, json.dumps(asdict(label)).encode())
    return report


def _check_target(data: Path, target: Path) -> None:
    if target.absolute().is_relative_to(data.absolute()):
        raise Invalid(
            f"target: got {str(target)!r}, inside the data folder; name a folder elsewhere, best on another disk"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Conflict(f"target: {str(target)!r} exists; name a new folder")


def _take_place(draft: Path, target: Path) -> None:
    """The last step: the finished backup gets its name."""
    for folder in [*(each for each in draft.rglob("*") if each.is_dir()), draft]:
        sync_folder(folder)
    draft.replace(target)
    sync_folder(target.parent)


def _check_source(source: Path) -> Report:
    if not (source / LABEL).is_file():
        raise Invalid(
            f"source: got {str(source)!r}, which is no finished backup; name one that `prunefleet hub backup` made"
        )
    report = check(source)
    if report.migration == 0:
        raise Invalid(f"source: {report.problems[0]}; name another backup")
    if report.migration > newest_migration():
        raise Invalid(f"source: made by a newer version (migration {report.migration}); upgrade prunefleet")
    return report


def _check_empty(data: Path) -> None:
    held = {each.name for each in data.iterdir()} - {"lock"}
    if held and RESTORING not in held:
        raise Conflict(
            f"data folder: {str(data)!r} is not empty ({min(held)!r}); name an empty one, nothing was changed"
        )


def _copy_files(source: Path, target: Path, wanted: Iterable[str]) -> None:
    """Copy files that are there and whole; those that are not are left for the check to tell."""
    target.mkdir(mode=0o700, exist_ok=True)
    for sha256 in wanted:
        to = place(target, sha256)
        to.parent.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            if _copy_whole(place(source, sha256), to) != sha256:
                to.unlink()
    for folder in [*target.iterdir(), target]:
        sync_folder(folder)


def _copy_whole(source: Path, target: Path) -> str:
    """Copy a file, on disk and mode 0600, so that under its name there is all of it; its SHA-256."""
    draft = target.with_name(f".{target.name}.part")
    found = hashlib.sha256()
    with source.open("rb") as old, os.fdopen(_private(draft), "wb") as new:
        while chunk := old.read(CHUNK):
            found.update(chunk)
            new.write(chunk)
        new.flush()
        os.fsync(new.fileno())
    draft.replace(target)
    return found.hexdigest()


def _private(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """What the disk says, in one line."""
    try:
        yield
    except OSError as error:
        named = error.filename or folder
        raise Unavailable(f"disk: {str(named)!r}: {error.strerror}; make room or name another folder") from error
