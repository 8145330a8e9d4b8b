"""The hub's database: SQLite in WAL, one writer thread that commits in groups, readers apart.

A write is acknowledged after the commit that holds it is on disk (`synchronous=FULL`). Writes that arrive while a
commit runs share the next one, each inside its own savepoint, so one that fails takes no other with it.
Source: https://www.sqlite.org/wal.html
"""

from __future__ import annotations

import fcntl
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any, Generic, TypeVar, cast

from sqlalchemy import Connection as Connection
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from prunefleet.infra.hub.store.errors import FolderInUse, StartupError, Unavailable

T = TypeVar("T")
RowMapping = Mapping[str, Any]  # a row by its columns' names
MAX_BATCH = 256
# Tables whose ids clients hold; the migration 0006 has a trigger for each.
NUMBERED = frozenset(("user", "project", "sweep", "agent", "run", "collection", "artifact"))
LABEL = "backup.json"  # stands in a backup, written last
RESTORING = "restoring"  # stands in a data folder while a backup is copied into it
# What the disk may say, and what to do about it; the low byte of SQLite's error code.
_DISK = {
    sqlite3.SQLITE_BUSY: "another process holds the hub's database, stop it",
    sqlite3.SQLITE_READONLY: "make the hub's data folder writable",
    sqlite3.SQLITE_IOERR: "look at the disk of the hub's data folder",
    sqlite3.SQLITE_FULL: "free space on the disk of the hub's data folder, the client tries again",
    sqlite3.SQLITE_CANTOPEN: "make the hub's data folder readable and writable",
    sqlite3.SQLITE_CORRUPT: "stop the hub, run `prunefleet hub check`, and restore a backup",
    sqlite3.SQLITE_NOTADB: "stop the hub, run `prunefleet hub check`, and restore a backup",
}


class Changes:
    """Counts commits, so that a page can ask cheaply whether anything happened since it last looked."""

    def __init__(self) -> None:
        self._value = 0
        self._condition = threading.Condition()

    @property
    def value(self) -> int:
        """The number of commits so far in this process."""
        return self._value

    def bump(self) -> None:
        """Record a commit and wake who waits for it."""
        with self._condition:
            self._value += 1
            self._condition.notify_all()

    def wait(self, since: int, timeout: float) -> int:
        """Return the counter as soon as it differs from `since`, or after `timeout` seconds."""
        with self._condition:
            self._condition.wait_for(lambda: self._value != since, timeout)
            return self._value


@dataclass(frozen=True)
class _Job(Generic[T]):
    work: Callable[[Connection], T]
    done: Future[T]


@dataclass(frozen=True)
class _Attempt:
    job: _Job[Any]
    result: Any = None
    error: Exception | None = None

    def deliver(self) -> None:
        if self.error is None:
            self.job.done.set_result(self.result)
        else:
            self.job.done.set_exception(self.error)


class Store:
    """Owns `folder` (database, blobs, secret) until closed.

    Raises `StartupError` when the folder belongs to another hub, cannot be written, or holds a newer or damaged
    database.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = take_folder(folder)
        self.changes = Changes()
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._closed = False
        self._writer = _engine(folder / "hub.db", writer=True)
        self._reader = _engine(folder / "hub.db", writer=False)
        try:
            _check_whole(folder)
            _migrate(self._writer)
        except (DBAPIError, sqlite3.Error) as error:
            self._release()
            raise StartupError(f"data folder: {folder / 'hub.db'} cannot be used: {_reason(error)}") from error
        except StartupError:
            self._release()
            raise
        self._thread = threading.Thread(target=self._run, name="hub-writer", daemon=True)
        self._thread.start()

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in the writer's transaction and return its result once it is on disk.

        Raises what `work` raises (its changes are undone), or `Unavailable` when the disk refuses.
        """
        if self._closed or threading.current_thread() is self._thread:
            raise Unavailable("the hub is shutting down; try again in a moment")
        job = _Job(work, Future())
        self._jobs.put(job)
        return job.done.result()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one consistent state of the database and cannot change it.

        Raises `Unavailable` when the disk refuses or the database is damaged.
        """
        try:
            with self._reader.connect() as connection:
                _sql(connection, "BEGIN")  # ended when the pool takes the connection back
                yield connection
        except (DBAPIError, sqlite3.Error) as error:
            if (refusal := _translate(error, "nothing was read")) is error:
                raise
            raise refusal from error

    def close(self) -> None:
        """Finish the writes under way, then let go of the folder."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            self._thread.join()
            self._refuse_rest()
            self._release()

    def _release(self) -> None:
        self._reader.dispose()
        self._writer.dispose()
        self._lock.close()

    def _run(self) -> None:
        while (first := self._jobs.get()) is not None:
            batch, last = self._gather(first)
            self._commit(batch)
            if last:
                return

    def _gather(self, first: _Job[Any]) -> tuple[list[_Job[Any]], bool]:
        batch = [first]
        while len(batch) < MAX_BATCH:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return batch, True
            batch.append(job)
        return batch, False

    def _refuse_rest(self) -> None:
        while not self._jobs.empty():
            job = self._jobs.get()
            if job is not None:
                job.done.set_exception(Unavailable("the hub is shutting down; try again in a moment"))

    def _commit(self, batch: list[_Job[Any]]) -> None:
        try:
            with self._writer.begin() as connection:
                attempts = [_attempt(connection, job) for job in batch]
        except Exception as error:  # whatever broke the transaction broke it for all who share it
            refused = _translate(error)
            for job in batch:
                job.done.set_exception(refused)
            return
        self.changes.bump()
        for attempt in attempts:
            attempt.deliver()


def _attempt(connection: Connection, job: _Job[Any]) -> _Attempt:
    """One job inside a savepoint. Raises only where SQLite gave up the whole transaction (a full disk can do that)."""
    _sql(connection, "SAVEPOINT job")
    try:
        attempt = _Attempt(job, result=job.work(connection))
    except Exception as error:
        if not _in_transaction(connection):
            raise
        _sql(connection, "ROLLBACK TO job")
        attempt = _Attempt(job, error=_translate(error))
    _sql(connection, "RELEASE job")
    return attempt


def _in_transaction(connection: Connection) -> bool:
    return _driver(connection).in_transaction


def _reason(error: BaseException) -> str:
    return str(error.orig if isinstance(error, DBAPIError) else error)


def _translate(error: Exception, said: str = "nothing was written") -> Exception:
    """An error of the disk becomes one that the client retries; any other stays what it is."""
    original = error.orig if isinstance(error, DBAPIError) else error
    remedy = _DISK.get(getattr(original, "sqlite_errorcode", 0) & 0xFF)
    return Unavailable(f"{said}: {original}; {remedy}") if remedy else error


def take_folder(folder: Path) -> IO[bytes]:
    """Lock a data folder (made if it is missing) until the file returned is closed or this process ends.

    Raises `FolderInUse` when another process holds it, `StartupError` when it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("ab")
    except OSError as error:
        raise StartupError(f"data folder: got {str(folder)!r}, {error.strerror}; name a folder to write in") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise FolderInUse(
            f"data folder: {str(folder)!r} is in use by another hub; stop that one, or name another folder"
        ) from error
    return lock


def _check_whole(folder: Path) -> None:
    """Raises `StartupError` rather than begin a new database where an old one should be."""
    if (folder / RESTORING).exists():
        raise StartupError(
            f"data folder: restoring into {str(folder)!r} was cut off; run `prunefleet hub restore` again"
        )
    if (folder / LABEL).exists():
        raise StartupError(f"data folder: {str(folder)!r} is a backup; `prunefleet hub restore` it into another folder")
    database = folder / "hub.db"
    if any((folder / "blobs").glob("??")) and not (database.exists() and database.stat().st_size):
        raise StartupError(f"data folder: {str(folder)!r} has files but no hub.db; put that back, or restore a backup")


def _engine(path: Path, *, writer: bool) -> Engine:
    limits = {"pool_size": 1, "max_overflow": 0} if writer else {"pool_size": 8, "max_overflow": 56}
    engine = create_engine(f"sqlite:///{path}", connect_args={"cached_statements": 512}, **limits)

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver must not open or close transactions of its own
        connection.execute("PRAGMA busy_timeout=10000")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        if not writer:
            connection.execute("PRAGMA query_only=ON")

    if writer:
        event.listen(engine, "begin", lambda connection: _sql(connection, "BEGIN IMMEDIATE"))
    return engine


def _scripts() -> dict[int, tuple[str, str]]:
    """Version → (file name, SQL) of every migration shipped with the package."""
    folder = resources.files("prunefleet.infra.hub.store") / "migrations"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return {int(f.name.split("_")[0]): (f.name, f.read_text(encoding="utf-8")) for f in files}


def newest_migration() -> int:
    """The number of the last migration that this version knows."""
    return max(_scripts())


def _migrate(engine: Engine) -> None:
    """Apply all that is missing in one transaction: if any of it fails, the version before reads all it left.

    So no copy is taken first, whose time and room would grow with the database; `prunefleet hub backup` makes one.
    """
    scripts = _scripts()
    with engine.begin() as connection:
        execute(connection, "CREATE TABLE IF NOT EXISTS migration (version INTEGER PRIMARY KEY, name TEXT) STRICT")
        done = {row["version"] for row in many(connection, "SELECT version FROM migration")}
        if newer := done - set(scripts):
            raise StartupError(f"data folder: written by a newer version (migration {max(newer)}); upgrade prunefleet")
        missing = sorted(set(scripts) - done)
        for version in missing:
            _apply(connection, version, *scripts[version])
        if missing and many(connection, "PRAGMA foreign_key_check"):
            raise StartupError(f"data folder: migration {scripts[missing[-1]][0]} breaks references; {_UNCHANGED}")


_UNCHANGED = "nothing was changed, the version before still reads it"


def _apply(connection: Connection, version: int, name: str, script: str) -> None:
    try:
        for statement in statements(script):
            _sql(connection, statement)
    except (DBAPIError, sqlite3.Error) as error:
        raise StartupError(f"data folder: migration {name} failed ({_reason(error)}); {_UNCHANGED}") from error
    execute(connection, "INSERT INTO migration VALUES (:version, :name)", version=version, name=name)


def statements(script: str) -> Iterator[str]:
    """Split a script where SQLite says a statement is complete (`executescript` would commit on its own)."""
    held = ""
    for line in script.splitlines():
        held += line + "\n"
        if sqlite3.complete_statement(held):
            yield held
            held = ""
    if held.strip():
        yield held


def _driver(connection: Connection) -> sqlite3.Connection:
    return cast(sqlite3.Connection, connection.connection.dbapi_connection)


def _sql(connection: Connection, sql: str, values: Mapping[str, object] | None = None) -> sqlite3.Cursor:
    """Straight to the driver: compiling a statement in SQLAlchemy costs ten times what SQLite needs to run it."""
    return _driver(connection).execute(sql, values or {})


def many(connection: Connection, sql: str, **values: object) -> list[RowMapping]:
    """All rows of a query; `:name` in `sql` is bound to the keyword of that name."""
    cursor = _sql(connection, sql, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def one(connection: Connection, sql: str, **values: object) -> RowMapping | None:
    """The first row of a query, or None."""
    cursor = _sql(connection, sql, values)
    row = cursor.fetchone()
    return None if row is None else dict(zip([column[0] for column in cursor.description], row, strict=True))


def scalar(connection: Connection, sql: str, **values: object) -> Any:
    """The first column of the first row, or None."""
    row = _sql(connection, sql, values).fetchone()
    return None if row is None else row[0]


def execute(connection: Connection, sql: str, **values: object) -> int:
    """Run a statement; returns the number of rows it changed."""
    return _sql(connection, sql, values).rowcount


def execute_each(connection: Connection, sql: str, values: Iterable[Mapping[str, object]]) -> None:
    """Run a statement once for each set of values."""
    _driver(connection).executemany(sql, values)


def insert(connection: Connection, table: str, **values: object) -> int:
    """Insert one row and return its id; `table` and the keywords are names of ours, never a user's."""
    if table in NUMBERED:
        values = {"id": _unused_id(connection, table), **values}
    columns, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
    sql = f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608
    return cast(int, _sql(connection, sql, values).lastrowid)


def _unused_id(connection: Connection, table: str) -> int:
    """One more than any id that is or was in the table: SQLite alone would give that of a deleted last row again."""
    ids = f"SELECT MAX(id) AS id FROM {table} UNION ALL SELECT id FROM used_id WHERE name = :name"  # noqa: S608
    return int(scalar(connection, f"SELECT COALESCE(MAX(id), 0) + 1 FROM ({ids})", name=table))  # noqa: S608


def update(connection: Connection, table: str, row_id: int, **values: object) -> None:
    """Set columns of the row with that id; `table` and the keywords are names of ours, never a user's."""
    if values:
        columns = ", ".join(f"{name} = :{name}" for name in values)
        execute(connection, f"UPDATE {table} SET {columns} WHERE id = :row_id", row_id=row_id, **values)  # noqa: S608
