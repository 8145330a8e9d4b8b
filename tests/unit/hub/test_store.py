"""The store: group commit, isolation of writes, full disks, one owner, migrations."""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.infra.hub.store.database import Connection, Store, execute, insert, many, scalar, statements
from prunefleet.infra.hub.store.errors import StartupError, Unavailable


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path)
    yield found
    found.close()


def add_user(connection: Connection, name: str) -> int:
    return insert(connection, "user", username=name, admin=0, created_at=0.0)


def user_names(store: Store) -> set[str]:
    with store.read() as connection:
        return {row["username"] for row in many(connection, "SELECT username FROM user")}


def test_writes_that_wait_share_a_commit(store: Store) -> None:
    """Writes that arrive while one is under way are committed together."""
    gate, inside = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        inside.set()
        assert gate.wait(60)

    before = store.changes.value
    with ThreadPoolExecutor(21) as pool:
        first = pool.submit(store.write, slow)
        assert inside.wait(60)
        rest = [pool.submit(store.write, lambda c, n=n: add_user(c, f"u{n}")) for n in range(20)]
        while store._jobs.qsize() < 20:
            threading.Event().wait(0.001)
        gate.set()
        ids = {future.result() for future in rest}
        first.result()
    assert len(ids) == 20
    assert store.changes.value == before + 2
    assert user_names(store) == {f"u{n}" for n in range(20)}


def test_a_failing_write_takes_no_other_with_it(store: Store) -> None:
    """A write that raises is undone alone, and its caller gets the error."""

    def half(connection: Connection) -> None:
        add_user(connection, "half")
        raise KeyError("no")

    with ThreadPoolExecutor(8) as pool:
        bad = [pool.submit(store.write, half) for _ in range(4)]
        good = [pool.submit(store.write, lambda c, n=n: add_user(c, f"u{n}")) for n in range(4)]
        assert all(isinstance(future.exception(), KeyError) for future in bad)
        assert all(future.result() for future in good)
    assert user_names(store) == {"u0", "u1", "u2", "u3"}


def test_readers_cannot_write(store: Store) -> None:
    """A read connection refuses changes, so that there is one writer."""
    with store.read() as connection, pytest.raises(Exception, match="readonly"):
        add_user(connection, "sneaky")


def test_a_reader_sees_one_state(store: Store) -> None:
    """What is committed while a reader is at work is not seen by it."""
    with store.read() as connection:
        assert scalar(connection, "SELECT COUNT(*) FROM user") == 0
        store.write(lambda c: add_user(c, "later"))
        assert scalar(connection, "SELECT COUNT(*) FROM user") == 0
    assert user_names(store) == {"later"}


def test_a_full_disk_refuses_and_keeps_the_old_state(store: Store) -> None:
    """When the disk is full nothing is half-written, the message says so, and later writes succeed."""
    store.write(lambda c: add_user(c, "before"))
    pages = store.write(lambda c: scalar(c, "PRAGMA page_count"))
    store.write(lambda c: execute(c, f"PRAGMA max_page_count={pages}"))
    with pytest.raises(Unavailable, match=r"nothing was written: .*full.*free space"):
        store.write(lambda c: [add_user(c, f"{n}-" + "x" * 4000) for n in range(50)])
    assert user_names(store) == {"before"}
    store.write(lambda c: execute(c, "PRAGMA max_page_count=1000000"))
    store.write(lambda c: add_user(c, "after"))
    assert user_names(store) == {"before", "after"}


def test_a_second_hub_on_the_folder_is_refused(store: Store) -> None:
    """Two hubs on one folder would be two writers; the second is told in one line."""
    with pytest.raises(StartupError, match="in use by another hub") as refused:
        Store(store.folder)
    assert "\n" not in str(refused.value)


def test_a_closed_store_refuses_writes_and_frees_its_folder(tmp_path: Path) -> None:
    """After close a write is refused as temporary, and the next hub finds everything."""
    first = Store(tmp_path)
    first.write(lambda c: add_user(c, "kept"))
    first.close()
    with pytest.raises(Unavailable):
        first.write(lambda c: add_user(c, "lost"))
    second = Store(tmp_path)
    assert user_names(second) == {"kept"}
    second.close()


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    """A database with a migration unknown here is refused with the remedy."""
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "hub.db") as connection:
        connection.execute("INSERT INTO migration VALUES (999, 'from the future')")
    connection.close()
    with pytest.raises(StartupError, match="upgrade prunefleet"):
        Store(tmp_path)


def test_a_damaged_database_is_left_alone(tmp_path: Path) -> None:
    """A file that is no database is refused in one line and not touched."""
    (tmp_path / "hub.db").write_bytes(b"not a database, but something dear to somebody" * 100)
    before = (tmp_path / "hub.db").read_bytes()
    with pytest.raises(StartupError, match="cannot be used"):
        Store(tmp_path)
    assert (tmp_path / "hub.db").read_bytes() == before


def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    """A path that is a file ends in one line."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StartupError, match="name a folder"):
        Store(tmp_path / "file")


def test_commits_are_full_and_in_wal(store: Store) -> None:
    """Acknowledged means on disk: the writer runs in WAL with synchronous=FULL."""
    assert store.write(lambda c: scalar(c, "PRAGMA journal_mode")) == "wal"
    assert store.write(lambda c: scalar(c, "PRAGMA synchronous")) == 2


@given(st.lists(st.sampled_from(["SELECT 1", "SELECT ';'", "SELECT 'a\n;b'", "-- a; b\nSELECT 2"]), max_size=6))
def test_scripts_split_where_statements_end(parts: list[str]) -> None:
    """Semicolons in texts and comments do not split a migration."""
    script = "".join(part + ";\n" for part in parts)
    assert [each.strip() for each in statements(script)] == [part + ";" for part in parts]


def test_changes_wake_who_waits(store: Store) -> None:
    """A page that waits for a change is woken by a commit."""
    since = store.changes.value
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.changes.wait, since, 10.0)
        store.write(lambda c: add_user(c, "news"))
        assert waiting.result() > since
