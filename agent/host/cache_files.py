"""Files that outlive a process: where they are, how they are written whole or not at all, and who writes them."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from prunefleet.objective.errors import BadInput

MIB = 2**20
DEFAULT_MB = 4096


def cache_folder() -> Path:
    """The folder for data sets, dense models and unfinished profiles: PRUNEFLEET_CACHE, else ~/.cache/prunefleet."""
    return Path(os.environ.get("PRUNEFLEET_CACHE") or "~/.cache/prunefleet").expanduser()


def bundle_folder(run: str) -> Path:
    """Where the files of a scored run are that may not leave this host."""
    return cache_folder() / "bundles" / run


def limit_bytes() -> int:
    """The most that results of trials may take on this host: PRUNEFLEET_CACHE_MB, else 4 GiB.

    Raises `BadInput` for another value than a whole number.
    """
    asked = os.environ.get("PRUNEFLEET_CACHE_MB") or str(DEFAULT_MB)
    if not asked.isdecimal():
        raise BadInput("PRUNEFLEET_CACHE_MB", asked, f"give a whole number of MiB such as {DEFAULT_MB}, or 0 for none")
    return int(asked) * MIB


def trim(folder: Path, limit: int) -> None:
    """Remove the files that were not used for longest, until the rest has at most `limit` bytes."""
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another agent may tidy up too
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    excess = sum(size for _, size, _ in found) - limit
    for _, size, path in sorted(found):
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        excess -= size


def replace_file(path: Path, content: bytes) -> None:
    """Write a file that is at every moment the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `path` when the block ends well and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield fresh
        if path.exists():
            shutil.rmtree(path)
        fresh.chmod(0o755)
        fresh.replace(path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold a lock file on this host: a second process waits for the first, however that one ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
