"""Files by content: each stored once, under the SHA-256 of its bytes, whole or not at all.

A file is written to a draft beside its place, flushed to disk, then renamed, so that whoever finds it finds all of it,
also after the machine has stopped. No name a client chose ever reaches the file system.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from prunefleet.infra.hub.store.errors import Invalid, Missing, TooLarge, Unavailable

SIZE_LIMIT = 16 << 30  # bytes of one file
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Blob:
    """A stored file: hexadecimal SHA-256, MD5 in base64 as W&B writes it, size in bytes."""

    sha256: str
    md5: str
    size: int


@dataclass(frozen=True)
class Stored:
    """A file as it lies in the folder: its name, size in bytes, and when it was last uploaded (seconds since 1970)."""

    sha256: str
    size: int
    uploaded_at: float


def stored(folder: Path) -> Iterator[Stored]:
    """Every file below a folder of blobs; none where there is no such folder."""
    for path in folder.glob("[0-9a-f][0-9a-f]/*"):
        if not _SHA256.fullmatch(path.name):
            continue  # not ours to count or to remove
        with suppress(FileNotFoundError):  # removed meanwhile
            found = path.stat()
            yield Stored(path.name, found.st_size, found.st_mtime)


def place(folder: Path, sha256: str) -> Path:
    """Where the file of that hash belongs. Raises `Missing` for what is no hash, so that no name leads elsewhere."""
    if not _SHA256.fullmatch(sha256):
        raise Missing("file: not an address of this server")
    return folder / sha256[:2] / sha256


class Blobs:
    """The files below `folder`, made if it is missing. One process owns it: drafts left behind are removed."""

    def __init__(self, folder: Path, size_limit: int = SIZE_LIMIT) -> None:
        self._folder = folder
        self._drafts = folder / "drafts"
        self._size_limit = size_limit
        self._moving = threading.Lock()
        self._drafts.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left_behind in self._drafts.iterdir():
            left_behind.unlink()

    def draft(self) -> Draft:
        """A file to write to, as a context manager; left without `keep`, nothing of it remains."""
        with _disk():
            file = tempfile.NamedTemporaryFile(dir=self._drafts, delete=False)  # noqa: SIM115  - closed by the draft
        return Draft(self, file, self._size_limit)

    def put(self, chunks: Iterable[bytes], md5: str | None = None) -> Blob:
        """Store bytes; `md5` (base64) is what they should have. Raises as `Draft.write` and `Draft.keep` do."""
        with self.draft() as draft:
            for chunk in chunks:
                draft.write(chunk)
            return draft.keep(md5)

    def path(self, sha256: str) -> Path:
        """Where a stored file is, to be read only. Raises `Missing`."""
        path = self._place(sha256)
        if not path.is_file():
            raise Missing("file: its bytes are not here; upload it again")
        return path

    def read(self, sha256: str) -> bytes:
        """The bytes of a stored file. Raises `Missing`."""
        return self.path(sha256).read_bytes()

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._folder

    def remove(self, sha256: str, unless_after: float) -> int | None:
        """Remove a file that nothing refers to; its size. None where it has gone, or was uploaded after that time."""
        path = self._place(sha256)
        with _disk(), self._moving, suppress(FileNotFoundError):
            found = path.stat()
            if found.st_mtime <= unless_after:
                path.unlink()
                return found.st_size
        return None

    def _place(self, sha256: str) -> Path:
        return place(self._folder, sha256)

    def _settle(self, draft: Path, sha256: str) -> None:
        path = self._place(sha256)
        if not path.parent.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self._folder)
        with self._moving:
            os.utime(draft, (time.time(),) * 2)  # what was uploaded just now is about to be referred to
            draft.replace(path)
        sync_folder(path.parent)


class Draft:
    """Bytes on their way into the store."""

    def __init__(self, blobs: Blobs, file: IO[bytes], size_limit: int) -> None:
        self._blobs = blobs
        self._file = file
        self._size_limit = size_limit
        self._size = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *_error: object) -> None:
        self.discard()

    def write(self, chunk: bytes) -> None:
        """Append bytes. Raises `TooLarge` above the size limit, `Unavailable` when the disk is full."""
        self._size += len(chunk)
        if self._size > self._size_limit:
            raise too_large(self._size_limit)
        self._sha256.update(chunk)
        self._md5.update(chunk)
        with _disk():
            self._file.write(chunk)

    def keep(self, md5: str | None = None) -> Blob:
        """Make the file permanent; on return it is on disk. Raises `Invalid` when its MD5 is not `md5` (base64)."""
        found = base64.b64encode(self._md5.digest()).decode()
        if md5 and md5 != found:
            raise Invalid(f"file: its MD5 is {found}, announced was {md5[:80]}; upload it again")
        blob = Blob(self._sha256.hexdigest(), found, self._size)
        with _disk():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._blobs._settle(Path(self._file.name), blob.sha256)
        return blob

    def discard(self) -> None:
        """Leave nothing behind, unless the file was kept."""
        with suppress(OSError):  # closing writes what is buffered, and a full disk refuses that again
            self._file.close()
        Path(self._file.name).unlink(missing_ok=True)


def too_large(limit: int) -> TooLarge:
    """The refusal of a file."""
    return TooLarge(f"file: more than {limit} bytes; split it, or start the hub with a higher --max-file-mb")


@contextmanager
def _disk() -> Iterator[None]:
    """A full disk becomes an error that the client retries."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise Unavailable("file: the hub's disk is full; free space there, the client tries again") from error
        raise Unavailable(f"file: the hub's data folder cannot be written ({error.strerror})") from error


def sync_folder(folder: Path) -> None:
    """Make what was renamed or made in a folder last, even when the machine stops."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
