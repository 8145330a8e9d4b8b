"""The host's turnstile, with real processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunefleet.agent.measure import lock
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import FailureKind, TrialFailed

from support.wait import wait_for

TRAINER = """
import sys
from pathlib import Path
from prunefleet.agent.measure import lock
count = 0
while True:
    with lock.batch():
        count += 1
        Path(sys.argv[1]).write_text(str(count))
"""
MEASURER = """
import sys, signal
from pathlib import Path
from prunefleet.agent.measure import lock
with lock.exclusive("NPU"):
    Path(sys.argv[1]).write_text("measuring")
    signal.pause()
"""
FORKING = """
import os, sys
from pathlib import Path
from prunefleet.agent.measure import lock
note = Path(sys.argv[1])
with lock.exclusive("CPU"):
    child = os.fork()
    if child == 0:
        with lock.batch():
            note.write_text("trained")
        os._exit(0)
    [os.sched_yield() for _ in range(200)]
    assert not note.exists() and lock.holder()["pid"] == os.getpid()
os.waitpid(child, 0)
assert note.read_text() == "trained"
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Starts scripts that share a folder of locks with this process, and ends them."""
    monkeypatch.setattr(lock.tempfile, "gettempdir", lambda: str(tmp_path))
    started: list[subprocess.Popen] = []

    def start(script: str, name: str) -> tuple[subprocess.Popen, Path]:
        note = tmp_path / name
        argv = [sys.executable, "-c", script, str(note)]
        started.append(subprocess.Popen(argv, env={**os.environ, "TMPDIR": str(tmp_path)}))
        wait_for(lambda: note.exists() and note.read_text())
        return started[-1], note

    yield start
    for process in started:
        process.kill()
        process.wait(60)


def test_training_stands_still_while_a_measurement_holds_the_host(host) -> None:
    """Two trainers finish their batch when a measurement begins, start none during it, and go on after it."""
    notes = [host(TRAINER, f"trainer{index}")[1] for index in range(2)]
    with lock.exclusive("CPU"):
        before = [note.read_text() for note in notes]
        assert lock.holder() == {"pid": os.getpid(), "device": "CPU"}
        for _ in range(200):
            os.sched_yield()
        assert [note.read_text() for note in notes] == before
    for note, count in zip(notes, before, strict=True):
        wait_for(lambda note=note, count=count: int(note.read_text() or 0) > int(count) + 10)
    assert lock.holder() is None


def test_two_devices_of_a_host_are_not_measured_at_once(host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor that drives one would disturb the other: each measurement has the whole host to itself."""
    host(MEASURER, "measurer")
    monkeypatch.setattr(lock, "MEASURER_PATIENCE_S", 0.1)
    with pytest.raises(TrialFailed, match=r"another measurement .*NPU"), lock.exclusive("GPU"):
        pass


def test_a_killed_measurement_releases_the_host(host) -> None:
    """A measurer killed with -9 lets waiting trainers and measurers go on."""
    measurer, _ = host(MEASURER, "measurer")
    assert lock.holder() == {"pid": measurer.pid, "device": "NPU"}
    measurer.send_signal(signal.SIGKILL)
    measurer.wait(60)
    with lock.batch():
        pass
    with lock.exclusive("CPU"):
        assert lock.holder() == {"pid": os.getpid(), "device": "CPU"}


def test_a_measurement_that_hangs_does_not_stop_the_host(host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training goes on after a while; another measurement fails in one line that names the process."""
    measurer, _ = host(MEASURER, "measurer")
    monkeypatch.setattr(lock, "TRAINER_PATIENCE_S", 0.1)
    monkeypatch.setattr(lock, "MEASURER_PATIENCE_S", 0.1)
    with lock.batch():
        pass
    monkeypatch.setattr(lock, "TRAINER_PATIENCE_S", 1e9)
    with lock.batch():  # waited for once, not once a batch
        pass
    with pytest.raises(TrialFailed, match=f"{measurer.pid}.* has held this host for") as failed, lock.exclusive("CPU"):
        pass
    assert failed.value.failure.kind == FailureKind.DEVICE and failed.value.failure.kind.blames_host


def test_a_waiting_measurement_is_not_starved(host) -> None:
    """With two trainers that never rest, a measurement begins again and again."""
    for index in range(2):
        host(TRAINER, f"trainer{index}")
    for _ in range(20):
        with lock.exclusive("CPU"):
            pass


def test_a_batch_inside_ones_own_measurement_does_not_wait(host) -> None:
    """The thread that measures may train and measure inside its own measurement."""
    with lock.exclusive("CPU"), lock.batch(), lock.exclusive("CPU"), lock.batch():
        assert lock.holder() is not None
    assert lock.holder() is None


def test_a_measurement_inside_a_batch_is_refused(host) -> None:
    """It would wait for itself for ever: an error says so instead."""
    with lock.batch(), pytest.raises(RuntimeError, match="inside a training batch"), lock.exclusive("CPU"):
        pass


def test_a_forked_child_waits_like_any_other_process(tmp_path: Path) -> None:
    """A child forked in the middle of a measurement neither releases it nor believes that it is its own."""
    argv = [sys.executable, "-c", FORKING, str(tmp_path / "note")]
    subprocess.run(argv, env={**os.environ, "TMPDIR": str(tmp_path)}, check=True, timeout=60)


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks in a folder that is not ours would be no locks."""
    monkeypatch.setattr(lock.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(lock.os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(BadInput, match="TMPDIR"):
        lock.folder()
