"""Whether a data folder or a backup is whole: its database, and every file that it refers to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from prunefleet.infra.hub.store import integrity
from prunefleet.infra.hub.store.blobs import Stored, place, stored
from prunefleet.infra.hub.store.errors import HubError, Missing

CHUNK = 1 << 20
_SHOWN = 20  # problems of one kind that are told one by one


@dataclass(frozen=True)
class Report:
    """What a check found. `orphans` are files that nothing refers to: no problem, `prunefleet hub gc` removes them."""

    problems: tuple[str, ...]
    migration: int
    files: int
    bytes: int
    orphans: int
    orphan_bytes: int

    @property
    def lines(self) -> list[str]:
        """In words, the verdict last."""
        counted = f"database at migration {self.migration}, {self.files} files of {self.bytes} bytes"
        orphans = f"{self.orphans} files of {self.orphan_bytes} bytes that nothing refers to"
        verdict = f"{len(self.problems)} problems, each on a line above" if self.problems else "all is whole"
        return [*self.problems, f"{counted}; {orphans}", verdict]


def check(folder: Path) -> Report:
    """Read all of it and compare; a database that cannot be read is a problem. Raises `Missing` where there is none."""
    try:
        with integrity.opened(folder) as connection:
            wrong = integrity.problems(connection)
            if wrong:
                return Report(tuple(wrong), 0, 0, 0, 0, 0)
            version, wanted = integrity.migration(connection), integrity.references(connection)
    except Missing:
        raise
    except HubError as error:
        return Report((str(error),), 0, 0, 0, 0, 0)
    return _compare(folder / "blobs", version, wanted)


def hash_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _compare(folder: Path, version: int, wanted: set[str]) -> Report:
    present = {each.sha256: each for each in stored(folder)}
    orphans = [each for name, each in present.items() if name not in wanted]
    missing = [f"file {name}: its bytes are gone" for name in sorted(wanted - present.keys())]
    held = sorted(wanted & present.keys())
    damaged = [f"file {name}: its bytes are damaged" for name in held if not _is_whole(folder, name)]
    wrong = (*_few(missing), *_few(damaged))
    return Report(wrong, version, len(held), _bytes([present[name] for name in held]), len(orphans), _bytes(orphans))


def _is_whole(folder: Path, sha256: str) -> bool:
    try:
        return hash_of(place(folder, sha256)) == sha256
    except OSError:
        return False


def _bytes(files: list[Stored]) -> int:
    return sum(each.size for each in files)


def _few(lines: list[str]) -> list[str]:
    rest = len(lines) - _SHOWN
    return lines if rest <= 0 else [*lines[:_SHOWN], f"{rest} more files like the last"]
