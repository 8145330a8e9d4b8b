"""Bad days of a hub's disk: each ends in one clear line, nothing is destroyed, and the old state stays readable."""

import http.client
import json
import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from prunefleet.infra.hub.runs.runs import RunChange, StreamPost
from prunefleet.infra.hub.store.file_rows import FileOwner
from prunefleet.infra.hub.store.lines import Stream

from support.hub import Clock, HubProcess, command, first_user, local_hub

BEGIN = 'mutation { upsertBucket(input: {name: "r1", modelName: "lab", host: "h"}) { inserted } }'
UPLOAD = """mutation { createRunFiles(input: {projectName: "lab", runName: "r1", files: ["f"]}) {
files { uploadUrl } } }"""
COUNT = '{ project(name: "lab") { run(name: "r1") { historyLineCount } } }'
ROWS = '{ project(name: "lab") { run(name: "r1") { history(samples: 10) } } }'


def refused_start(data: Path) -> str:
    """The one line with which a hub declines to start on that folder."""
    code, said = command("--data", data, "--port", "0")
    assert code == 2, said
    assert said.count("\n") == 1, said
    return said


def old_hub(data: Path) -> None:
    """A data folder with one run of 100 rows, left in order."""
    with local_hub(data, Clock()) as hub:
        hub.begin_run(first_user(hub), RunChange(project="lab", name="r1", host="h"))
        lines = [json.dumps({"_step": n}) for n in range(100)]
        hub.stream("local", "lab", "r1", StreamPost(lines={Stream.HISTORY: (0, lines)}))


def rows_in(data: Path) -> int:
    """How many rows that run has."""
    with local_hub(data, Clock()) as hub:
        run = hub.records.run("local", "lab", "r1")
        return run.history_lines if run else 0


def log(hub: HubProcess, first: int, lines: int = 100) -> tuple[int, Any]:
    """Send history rows; status and answer."""
    rows = [json.dumps({"_step": n, "text": "x" * 200}) for n in range(first, first + lines)]
    return hub.post(
        "/files/local/lab/r1/file_stream", {"files": {"wandb-history.jsonl": {"offset": first, "content": rows}}}
    )


def log_until_refused(hub: HubProcess) -> tuple[int, str]:
    """How many rows were acknowledged before the first refusal, and what it said."""
    for first in range(0, 100_000, 100):
        status, answer = log(hub, first)
        if status != 200:
            assert status == 503, answer
            return first, str(answer["error"])
    raise AssertionError("the disk never was full")


def count(hub: HubProcess) -> int:
    return int(hub.query(COUNT)["project"]["run"]["historyLineCount"])


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 3 MiB at `folder`."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def upload_address(hub: HubProcess) -> str:
    answer = hub.query(UPLOAD)
    return str(answer["createRunFiles"]["files"][0]["uploadUrl"])


def upload(url: str, content: bytes) -> tuple[int, str]:
    """Status and text of an upload."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    with closing(connection):
        connection.request("PUT", urlsplit(url).path, content)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@pytest.mark.mount
def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    """A full disk: 503 with a remedy, also after a kill; reads go on; with room all goes on unharmed."""
    with small_disk(tmp_path / "hub") as data, HubProcess(tmp_path) as hub:
        hub.query(BEGIN)
        kept, said = log_until_refused(hub)
        assert "nothing was written" in said
        assert "free space" in said
        assert count(hub) == kept
        status, said = upload(upload_address(hub), b"x" * (4 << 20))
        assert (status, "disk is full" in said) == (503, True)
        hub.kill9()
        (data / "hub.address").unlink()  # its room is needed
        fill(data / "filler")
        hub.restart()
        assert count(hub) == kept
        assert log(hub, kept)[0] == 503
        assert "data folder" in refused_start(data / "a new hub")
        assert "does not answer yet" in command("users", "--data", data)[1]
        (data / "filler").unlink()
        remount(data, "size=64m")
        assert log(hub, kept)[0] == 200
        assert count(hub) == kept + 100
        assert upload(upload_address(hub), b"x" * (4 << 20))[0] == 200
        hub.stop()
        assert command("check", "--data", data)[0] == 0


def fill(path: Path) -> None:
    """Leave no room on a disk."""
    with path.open("ab", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


def test_a_limit_on_file_size_refuses_and_recovers(tmp_path: Path) -> None:
    """Where the system lets no file grow, writes are refused like on a full disk, and go on when it does again."""
    with HubProcess(tmp_path) as hub:
        hub.query(BEGIN)
        pid = json.loads((tmp_path / "ready.json").read_text())["pid"]
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 20, hard))
        kept, said = log_until_refused(hub)
        assert "nothing was written" in said
        assert count(hub) == kept
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert log(hub, kept)[0] == 200
        assert count(hub) == kept + 100
        assert command("check", "--data", tmp_path / "hub")[0] == 0


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that cannot be written: by its mode, or for root by a mount."""
    if os.geteuid() != 0:
        for path in [*folder.rglob("*"), folder]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        return
    bound = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, text=True, check=False)
    if bound.returncode:
        pytest.skip(f"root may write everywhere, and `mount` is refused here: {bound.stderr.strip()}")
    try:
        remount(folder, "bind,ro")
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    """A folder that cannot be written is told at the start and to administrators; made writable, all is there."""
    data = tmp_path / "hub"
    old_hub(data)
    with read_only(data):
        assert "name a folder to write in" in refused_start(data)
        code, said = command("users", "--data", data)
        assert (code, "name a folder to write in" in said) == (2, True)
    assert rows_in(data) == 100


def test_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    """Garbage where the database should be: start, check and backup each say so, and the bytes stay."""
    data = tmp_path / "hub"
    data.mkdir()
    (data / "hub.db").write_bytes(b"something dear to somebody " * 500)
    before = (data / "hub.db").read_bytes()
    assert "file is not a database" in refused_start(data)
    code, said = command("check", "--data", data)
    assert (code, "file is not a database" in said) == (1, True)
    code, said = command("backup", tmp_path / "copy", "--data", data)
    assert (code, "file is not a database" in said) == (1, True)
    assert (data / "hub.db").read_bytes() == before
    assert not (tmp_path / "copy").exists()


def test_a_damaged_page_is_told_and_a_backup_brings_all_back(tmp_path: Path) -> None:
    """Damage in mid-file: requests that meet it get 503 with the remedy, check tells it, an earlier backup serves."""
    with HubProcess(tmp_path) as hub:
        hub.query(BEGIN)
        log(hub, 0, 2000)
        data = tmp_path / "hub"
        assert command("backup", tmp_path / "copy", "--data", data)[0] == 0
        hub.stop()
        damage(data / "hub.db", "line")
        hub.restart()
        status, answer = hub.post("/graphql", {"query": ROWS})
        assert status == 503, answer
        assert "prunefleet hub check" in answer["errors"][0]["message"]
        code, said = command("check", "--data", data)
        assert (code, "database: " in said) == (1, True)
        code, said = command("backup", tmp_path / "worse", "--data", data)
        assert (code, "no backup was made of a damaged database" in said) == (1, True)
        hub.stop()
        data.rename(tmp_path / "damaged")
        assert command("restore", tmp_path / "copy", "--data", data)[0] == 0
        hub.restart()
        assert count(hub) == 2000
        assert hub.query(ROWS)["project"]["run"]["history"]


def damage(database: Path, table: str) -> None:
    """Overwrite the root page of a table."""
    with closing(sqlite3.connect(database)) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    with database.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)


@pytest.mark.mount
def test_a_full_disk_ends_a_backup_and_a_restore_cleanly(tmp_path: Path) -> None:
    """A backup that has no room leaves nothing; a restore that has none starts no hub, and goes on where there is."""
    data, copy = tmp_path / "hub", tmp_path / "copy"
    old_hub(data)
    with local_hub(data, Clock()) as hub:
        run = hub.records.run("local", "lab", "r1")
        assert run is not None
        hub.files.keep(FileOwner.RUN, run.id, "f", hub.files.blobs.put([b"x" * (4 << 20)]))
    with small_disk(tmp_path / "disk") as disk:
        code, said = command("backup", disk / "copy", "--data", data)
        assert (code, said.count("\n"), "No space left" in said) == (1, 1, True)
        assert list(disk.iterdir()) == []
        assert command("backup", copy, "--data", data)[0] == 0
        code, said = command("restore", copy, "--data", disk / "new")
        assert (code, said.count("\n"), "No space left" in said) == (1, 1, True)
        assert "run `prunefleet hub restore` again" in refused_start(disk / "new")
        remount(disk, "size=64m")
        assert command("restore", copy, "--data", disk / "new")[0] == 0
        assert rows_in(disk / "new") == 100


def test_a_second_hub_is_refused_and_the_first_serves_on(tmp_path: Path) -> None:
    """Two hubs on one folder: the second ends with one line, and the first does not notice."""
    with HubProcess(tmp_path) as hub:
        hub.query(BEGIN)
        assert "in use by another hub; stop that one, or name another folder" in refused_start(tmp_path / "hub")
        assert log(hub, 0)[0] == 200
        assert command("users", "--data", tmp_path / "hub")[0] == 0


def test_a_newer_folder_is_refused(tmp_path: Path) -> None:
    """A database of a newer version: start, users and restore say what to do; check and backup serve it too."""
    data = tmp_path / "hub"
    old_hub(data)
    with closing(sqlite3.connect(data / "hub.db")) as connection, connection:
        connection.execute("INSERT INTO migration VALUES (999, 'from the future')")
    assert "upgrade prunefleet" in refused_start(data)
    code, said = command("users", "--data", data)
    assert (code, "upgrade prunefleet" in said) == (2, True)
    assert command("check", "--data", data)[0] == 0
    assert command("backup", tmp_path / "copy", "--data", data)[0] == 0
    code, said = command("restore", tmp_path / "copy", "--data", tmp_path / "new")
    assert (code, "upgrade prunefleet" in said) == (2, True)


def test_a_restore_that_was_cut_off_is_taken_up_again(tmp_path: Path) -> None:
    """No hub starts on half of a restore; the same command finishes it."""
    old_hub(tmp_path / "hub")
    assert command("backup", tmp_path / "copy", "--data", tmp_path / "hub")[0] == 0
    new = tmp_path / "new"
    new.mkdir()
    (new / "restoring").write_text("a kill came after this")
    assert "run `prunefleet hub restore` again" in refused_start(new)
    assert command("restore", tmp_path / "copy", "--data", new)[0] == 0
    assert rows_in(new) == 100
