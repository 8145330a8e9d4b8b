"""Files by content: whole or not at all, never outside their folder."""

import base64
import errno
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.infra.hub.artifacts.names import check_file
from prunefleet.infra.hub.store.blobs import Blobs
from prunefleet.infra.hub.store.errors import Invalid, Missing, Unavailable


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs", size_limit=1000)


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_put_is_read_back_under_its_digests(blobs: Blobs) -> None:
    """A stored file is found by its SHA-256; MD5 and size are as W&B writes them."""
    blob = blobs.put([b"hel", b"lo"])
    assert blob.sha256 == hashlib.sha256(b"hello").hexdigest()
    assert blob.md5 == base64.b64encode(hashlib.md5(b"hello").digest()).decode()
    assert blob.size == 5
    assert blobs.read(blob.sha256) == b"hello"


def test_the_same_content_is_stored_once(blobs: Blobs, tmp_path: Path) -> None:
    """Two files of the same bytes take the room of one."""
    assert blobs.put([b"twice"]) == blobs.put([b"twi", b"ce"])
    assert len(files_in(tmp_path)) == 1


def test_an_empty_file_is_a_file(blobs: Blobs) -> None:
    """No bytes at all can be stored too."""
    assert blobs.read(blobs.put([]).sha256) == b""


def test_too_large_a_file_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    """Above the limit the upload is refused in one line and no draft remains."""
    with pytest.raises(Invalid, match="more than 1000 bytes"):
        blobs.put([b"x" * 600, b"x" * 600])
    assert files_in(tmp_path) == []


def test_a_wrong_md5_is_refused(blobs: Blobs, tmp_path: Path) -> None:
    """Bytes that were damaged on the way are not kept under the name of what was sent."""
    with pytest.raises(Invalid, match="announced was AAAA"):
        blobs.put([b"damaged"], md5="AAAA")
    assert files_in(tmp_path) == []


def test_an_upload_that_breaks_off_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    """An error while bytes arrive is passed on, and the draft goes."""

    def broken() -> "list[bytes]":
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError), blobs.draft() as draft:
        draft.write(b"first half")
        broken()
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("step", ["fsync", "replace", "open"])
def test_a_full_disk_is_a_clean_error(blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Wherever the disk turns out to be full, the client is asked to try again and nothing remains."""

    def refuse(*_arguments: object, **_named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    places: dict[str, Callable[[], None]] = {
        "fsync": lambda: monkeypatch.setattr("prunefleet.infra.hub.store.blobs.os.fsync", refuse),
        "replace": lambda: monkeypatch.setattr(Path, "replace", refuse),
        "open": lambda: monkeypatch.setattr("prunefleet.infra.hub.store.blobs.tempfile.NamedTemporaryFile", refuse),
    }
    places[step]()
    with pytest.raises(Unavailable, match="disk is full"):
        blobs.put([b"some bytes"])
    monkeypatch.undo()
    assert files_in(tmp_path) == []
    assert blobs.put([b"some bytes"]).size == 10


def test_bytes_the_system_refuses_are_a_clean_error(tmp_path: Path) -> None:
    """Where a write itself fails (met here by a limit on file size, in a child), nothing remains either."""
    code = (
        "import pathlib, resource, signal, sys\n"
        "from prunefleet.infra.hub.store.blobs import Blobs\n"
        "from prunefleet.infra.hub.store.errors import Unavailable\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: Blobs(pathlib.Path(sys.argv[1])).put([b'x' * 100_000])\n"
        "except Unavailable as error: print(error)\n"
    )
    child = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert "cannot be written" in child.stdout
    assert files_in(tmp_path) == []


def test_drafts_left_by_a_crash_are_removed(tmp_path: Path) -> None:
    """The next start clears what an earlier process did not finish, and keeps what it did."""
    blobs = Blobs(tmp_path)
    kept = blobs.put([b"kept"])
    blobs.draft().write(b"never finished")
    assert len(files_in(tmp_path)) == 2
    assert Blobs(tmp_path).read(kept.sha256) == b"kept"
    assert len(files_in(tmp_path)) == 1


def test_many_writers_of_the_same_bytes_agree(blobs: Blobs, tmp_path: Path) -> None:
    """Uploads of one content at the same time end in one whole file."""
    found = []
    threads = [threading.Thread(target=lambda: found.append(blobs.put([b"same"] * 100))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert files_in(tmp_path) == [blobs.path(found[0].sha256)]


@given(st.text())
def test_no_address_leads_out_of_the_folder(address: str) -> None:
    """Whatever is asked for, only a SHA-256 reaches the file system."""
    folder = Path("/nonexistent-blobs")
    blobs = Blobs.__new__(Blobs)
    blobs._folder = folder
    with pytest.raises(Missing):
        blobs.path(address)


PART = st.one_of(st.sampled_from(["..", ".", "", "a", "a b", "..a", "C:", "\\", "..\\..", "\0"]), st.text(max_size=5))


@given(st.lists(PART, min_size=1, max_size=5).map("/".join))
def test_no_file_name_leads_out_of_a_download_folder(name: str) -> None:
    """A name that is accepted stays below the folder it is downloaded into, on Linux and on Windows."""
    try:
        check_file(name)
    except Invalid:
        return
    for separator in ("/", "\\"):
        parts = name.replace("\\", separator).split(separator)
        assert ".." not in parts
        assert not Path(name).is_absolute()
    assert os.path.normpath(f"/root/of/download/{name}").startswith("/root/of/download/")
    name.encode()


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../../b", "a//b", "", "C:\\x", "\\\\host\\x", "x\n", "\ud800"]
)
def test_names_that_could_leave_are_refused(name: str) -> None:
    """Absolute, climbing, empty and unprintable names are refused in one line."""
    with pytest.raises(Invalid, match="use a relative path") as refused:
        check_file(name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["config.yaml", "media/images/a b_1.png", "ä/ö.txt", "ab:c/d", "...", ".hidden"])
def test_ordinary_names_are_taken(name: str) -> None:
    """What the client really uploads is accepted."""
    assert check_file(name) == name
