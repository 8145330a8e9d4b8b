"""Old databases: brought to the schema of a fresh one with all their rows, or left exactly as they were."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from prunefleet.infra.hub.store import database
from prunefleet.infra.hub.store.database import Store, statements
from prunefleet.infra.hub.store.errors import StartupError

from support.hub import Clock, local_hub

SCRIPTS = database._scripts()
OLD = 2  # the last migration of the first release
# One row of each table, as the first release wrote them; references hold.
ROWS: dict[str, dict[str, Any]] = {
    "user": {"id": 1, "username": "local", "admin": 1, "created_at": 1.0},
    "api_key": {"hash": "ab" * 32, "user_id": 1, "created_at": 1.0},
    "project": {"id": 1, "entity": "local", "name": "demo", "user_id": 1, "created_at": 1.0},
    "sweep": {
        "id": 1,
        "project_id": 1,
        "name": "sw33p",
        "user_id": 1,
        "config_yaml": "method: random\nparameters: {x: {min: 0.0, max: 1.0}}\n",
        "state": "RUNNING",
        "created_at": 1.0,
        "updated_at": 1.0,
    },
    "agent": {
        "id": 1,
        "name": "ag3nt",
        "sweep_id": 1,
        "user_id": 1,
        "host": "h",
        "created_at": 1.0,
        "heartbeat_at": 1.0,
    },
    "run": {
        "id": 1,
        "project_id": 1,
        "name": "r1",
        "sweep_id": 1,
        "agent_id": 1,
        "user_id": 1,
        "state": "finished",
        "display_name": "trial-1",
        "created_at": 1.0,
    },
    "line": {"run_id": 1, "stream": "history", "number": 0, "step": 0, "text": '{"_step": 0, "loss": 1}'},
    "run_file": {
        "id": 1,
        "run_id": 1,
        "name": "config.yaml",
        "sha256": "c" * 64,
        "md5": "m",
        "size": 3,
        "updated_at": 1.0,
    },
    "collection": {
        "id": 1,
        "project_id": 1,
        "name": "model",
        "kind": "ArtifactSequence",
        "type": "model",
        "created_at": 1.0,
        "updated_at": 1.0,
    },
    "artifact": {
        "id": 1,
        "collection_id": 1,
        "run_id": 1,
        "state": "COMMITTED",
        "digest": "d",
        "created_at": 1.0,
        "updated_at": 1.0,
    },
    "membership": {"id": 1, "collection_id": 1, "artifact_id": 1, "version": 0, "created_at": 1.0},
    "alias": {"id": 1, "collection_id": 1, "membership_id": 1, "name": "latest"},
    "artifact_file": {"id": 1, "artifact_id": 1, "name": "w", "md5": "m", "sha256": "d" * 64, "updated_at": 1.0},
    "artifact_use": {"run_id": 1, "artifact_id": 1, "created_at": 1.0},
}


def old_database(folder: Path, newest: int = OLD) -> Path:
    """A data folder of a release that knew the migrations up to `newest`, with one row in each table."""
    folder.mkdir(exist_ok=True)
    (folder / "secret").write_bytes(b"s" * 32)
    path = folder / "hub.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("CREATE TABLE migration (version INTEGER PRIMARY KEY, name TEXT) STRICT")
        for version in sorted(v for v in SCRIPTS if v <= newest):
            name, script = SCRIPTS[version]
            for statement in statements(script):
                connection.execute(statement)
            connection.execute("INSERT INTO migration VALUES (?, ?)", (version, name))
        for table, row in ROWS.items():
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
    return path


def schema(path: Path) -> dict[tuple[str, str], str]:
    """Every object of the schema by kind and name, in one spelling."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    return {(kind, name): " ".join(sql.split()) for kind, name, sql in found}


def content(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of every table that the first release had, in its columns."""
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: connection.execute(f"SELECT {', '.join(row)} FROM {table} ORDER BY 1").fetchall()
            for table, row in ROWS.items()
        }


def fresh(folder: Path) -> Path:
    Store(folder).close()
    return folder / "hub.db"


def test_the_fixture_has_a_row_in_every_table(tmp_path: Path) -> None:
    """No table of the first release is forgotten by these tests."""
    tables = {name for kind, name in schema(old_database(tmp_path)) if kind == "table"}
    assert tables == ROWS.keys() | {"migration"}


@pytest.mark.parametrize("newest", sorted(SCRIPTS)[OLD - 1 :])
def test_a_migrated_schema_is_a_fresh_one(tmp_path: Path, newest: int) -> None:
    """From whichever release, the schema becomes that of a new hub, and every row stays."""
    old = old_database(tmp_path / "old", newest)
    before = content(old)
    Store(old.parent).close()
    assert schema(old) == schema(fresh(tmp_path / "new"))
    assert content(old) == before
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_a_migrated_hub_reads_what_the_old_one_wrote(tmp_path: Path) -> None:
    """Runs, history and files of an old folder are there through the hub."""
    old_database(tmp_path)
    with local_hub(tmp_path, Clock()) as hub:
        run = hub.records.run("local", "demo", "r1")
        assert run is not None
        assert (run.sweep, run.history_lines, hub.run_lines.history(run.id)) == ("sw33p", 1, [{"_step": 0, "loss": 1}])
        assert [file.name for file in hub.files.listed(run.id)] == ["config.yaml"]


BAD = {
    "fails at its end": "CREATE TABLE later (id INTEGER) STRICT;\nDELETE FROM run;\nSELECT * FROM nowhere;\n",
    "breaks references": "PRAGMA defer_foreign_keys=ON;\nUPDATE run SET user_id = 99;\n",
}


@pytest.mark.parametrize("script", BAD.values(), ids=BAD.keys())
def test_a_migration_that_fails_half_way_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """All migrations of an upgrade happen or none: the release before reads the folder as if nothing had been."""
    path = old_database(tmp_path)
    before, rows = schema(path), content(path)
    monkeypatch.setattr(database, "_scripts", lambda: {**SCRIPTS, 998: ("0998_bad.sql", script)})
    with pytest.raises(StartupError, match=r"0998_bad\.sql .*nothing was changed") as refused:
        Store(tmp_path)
    assert "\n" not in str(refused.value)
    assert (schema(path), content(path)) == (before, rows)
    monkeypatch.undo()
    Store(tmp_path).close()


def test_a_newer_database_is_not_touched(tmp_path: Path) -> None:
    """A folder of a newer version is refused with the remedy, and its file stays byte for byte."""
    path = fresh(tmp_path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO migration VALUES (999, 'from the future')")
    before = path.read_bytes()
    with pytest.raises(StartupError, match=r"newer version \(migration 999\); upgrade prunefleet"):
        Store(tmp_path)
    assert path.read_bytes() == before


def test_a_lost_database_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    """Where files of a hub lie and no database, the hub says so instead of beginning anew."""
    with local_hub(tmp_path, Clock()) as hub:
        hub.files.blobs.put([b"dear"])
    (tmp_path / "hub.db").unlink()
    with pytest.raises(StartupError, match=r"has files but no hub\.db; put that back, or restore a backup"):
        Store(tmp_path)
    assert not (tmp_path / "hub.db").exists()
