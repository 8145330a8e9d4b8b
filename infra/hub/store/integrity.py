"""SQL that looks at a hub's database from beside the store, read only: what is in it, and whether it is whole.

It needs neither the store nor the latest schema, so it serves a running hub, a stopped one, an older one and a backup.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from prunefleet.infra.hub.store.errors import Missing, Unavailable

DATABASE = "hub.db"
# What tells that a row's file goes when these runs and artifacts go.
_LEAVES_OUT = {
    "run_file": "run_id NOT IN (SELECT value FROM json_each(:runs))",
    "artifact_file": "artifact_id NOT IN (SELECT value FROM json_each(:artifacts))",
    "artifact": "id NOT IN (SELECT value FROM json_each(:artifacts))",
}


@contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database of a data folder or a backup, in one consistent state, not to be changed.

    Raises `Missing` where there is none, `Unavailable` where it cannot be read.
    """
    path = folder / DATABASE
    if not path.is_file():
        raise Missing(
            f"data folder: {str(folder)!r} holds no hub; name the folder that `prunefleet hub --data` was given"
        )
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as found:
            found.execute("PRAGMA busy_timeout=10000")
            found.execute("BEGIN")
            yield found
    except sqlite3.Error as error:
        raise Unavailable(
            f"database: {str(path)!r} cannot be read ({error}); look at the disk, or restore a backup"
        ) from error


def problems(connection: sqlite3.Connection) -> list[str]:
    """What is wrong with the database; nothing where it is whole."""
    try:
        integrity = [row[0] for row in connection.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
        broken = connection.execute("PRAGMA foreign_key_check").fetchall()[:20] if not integrity else []
    except sqlite3.DatabaseError as error:
        return [f"database: {error}"]
    lines = [f"database: {line}" for found in integrity for line in found.splitlines()]
    return lines + [
        f"database: row {row} of {table} refers to a missing row of {other}" for table, row, other, _ in broken
    ]


def migration(connection: sqlite3.Connection) -> int:
    """The number of the newest migration in it."""
    return int(connection.execute("SELECT COALESCE(MAX(version), 0) FROM migration").fetchone()[0])


def references(
    connection: sqlite3.Connection, without_runs: Collection[int] = (), without_artifacts: Collection[int] = ()
) -> set[str]:
    """Hashes of all files that rows refer to; on request those that would be left without some runs and artifacts.

    Any column called `sha256` or `…_sha256` counts, so a table of tomorrow is not forgotten.
    """
    found: set[str] = set()
    values = {"runs": json.dumps(list(without_runs)), "artifacts": json.dumps(list(without_artifacts))}
    for table, column in _hash_columns(connection):
        sql = f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL AND {_LEAVES_OUT.get(table, '1')}"  # noqa: S608
        found.update(row[0] for row in connection.execute(sql, values))
    return found


def snapshot(folder: Path, target: Path) -> None:
    """Copy the database of a data folder as it is now into the file `target`, while it is written to.

    One step of SQLite's backup: a reader in WAL, so writers go on. Raises `Missing`, `Unavailable`.
    """
    with opened(folder) as source, closing(sqlite3.connect(target)) as copy:
        try:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, with nothing beside it
        except sqlite3.Error as error:
            raise Unavailable(
                f"database: it cannot be copied to {str(target)!r} ({error}); look at both disks"
            ) from error


def _hash_columns(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    sql = """
    SELECT t.name, c.name FROM sqlite_schema AS t, pragma_table_info(t.name) AS c
    WHERE t.type = 'table' AND (c.name = 'sha256' OR c.name LIKE '%!_sha256' ESCAPE '!') ORDER BY 1, 2
    """
    return [(table, column) for table, column in connection.execute(sql)]
