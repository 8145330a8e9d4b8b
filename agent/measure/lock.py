"""One measurement at a time on a host, and training pauses meanwhile: a turnstile of two advisory file locks.

A measurer takes the gate alone, then the work alone. A trainer, for each batch, passes the gate and shares the work.
So a waiting measurer lets no new batch begin and starts as soon as the running ones have ended; trainers do not wait
for each other. The kernel drops a process's locks when it dies, however it dies. One that hangs is waited for, but not
for ever: training then goes on, and a measurement fails as this host's fault.
"""

import fcntl
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Failure, FailureKind, TrialFailed

TRAINER_PATIENCE_S = 120.0
MEASURER_PATIENCE_S = 600.0


def folder() -> Path:
    """This user's folder of locks on this host, made private where it is missing.

    Raises `BadInput` if someone else owns a folder of that name.
    """
    path = Path(tempfile.gettempdir()) / f"prunefleet-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise BadInput("TMPDIR", str(path), "name a temporary folder that is yours: this one belongs to another user")
    return path


@dataclass
class _Held(threading.local):
    """What one thread holds. flock counts open files, so each thread and each forked process opens its own."""

    pid: int = 0
    measuring: int = 0
    batches: int = 0
    impatient: bool = False
    files: dict[Path, BinaryIO] = field(default_factory=dict)

    def file(self, name: str) -> BinaryIO:
        if self.pid != os.getpid():  # after a fork the files are the parent's: locking them would move its locks
            self.pid, self.measuring, self.batches, self.files = os.getpid(), 0, 0, {}
        path = folder() / name
        if path not in self.files:
            self.files[path] = path.open("a+b", buffering=0)
        return self.files[path]


_held = _Held()


def _taken(file: BinaryIO, how: int, patience_s: float) -> bool:
    """Take the lock within that time; asks again and again, since a wait inside the kernel has no end."""
    until, pause = time.monotonic() + patience_s, 0.001
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.02)


@contextmanager
def _alone(file: BinaryIO) -> Iterator[None]:
    """Hold the lock alone. Raises `TrialFailed` with kind DEVICE where it is not free within a measurer's patience."""
    if not _taken(file, fcntl.LOCK_EX, MEASURER_PATIENCE_S):
        who = holder() or {}
        busy = "a training batch" if who.get("pid") == os.getpid() else f"another measurement {who}"
        message = f"{busy} has held this host for {MEASURER_PATIENCE_S:.0f} s"
        raise TrialFailed(Failure(FailureKind.DEVICE, "measure", message))
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


@contextmanager
def exclusive(device: str) -> Iterator[None]:
    """Hold the host for one measurement on `device`: waits for running batches and for other measurements.

    May be entered again by the thread that holds it. Raises `RuntimeError` inside `batch()`, where it would wait for
    itself, and `TrialFailed` with kind DEVICE where the host is not free within ten minutes.
    """
    gate, work = _held.file("gate"), _held.file("work")
    if _held.batches:
        raise RuntimeError("a measurement may not begin inside a training batch: leave `lock.batch()` first")
    if _held.measuring:
        yield
        return
    with _alone(gate), _signed(gate, device), _alone(work):
        _held.measuring += 1
        try:
            yield
        finally:
            _held.measuring -= 1


@contextmanager
def _signed(gate: BinaryIO, device: str) -> Iterator[None]:
    """Leave a note of who measures, for people who wonder what their training waits for."""
    gate.truncate(0)
    gate.write(json.dumps({"pid": os.getpid(), "device": device}).encode())
    try:
        yield
    finally:
        gate.truncate(0)


@contextmanager
def batch() -> Iterator[None]:
    """Run one batch of training or evaluation; waits first while a measurement holds the host.

    Costs a few microseconds when nothing measures. Inside this thread's own measurement it does nothing, and after two
    minutes it waits no longer: such a measurement hangs.
    """
    gate, work = _held.file("gate"), _held.file("work")
    if _held.measuring or _held.batches:
        yield
        return
    passed = _taken(gate, fcntl.LOCK_SH, 0 if _held.impatient else TRAINER_PATIENCE_S)
    _held.impatient = not passed  # a hanging measurement is waited for once, not once a batch
    if passed:
        _taken(work, fcntl.LOCK_SH, TRAINER_PATIENCE_S)
        fcntl.flock(gate, fcntl.LOCK_UN)
    _held.batches += 1
    try:
        yield
    finally:
        _held.batches -= 1
        fcntl.flock(work, fcntl.LOCK_UN)


def holder() -> dict[str, object] | None:
    """Who measures on this host now: {"pid", "device"}; None when nobody does."""
    try:
        with (folder() / "gate").open("a+b") as probe:
            fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        text = (folder() / "gate").read_text()
        return json.loads(text) if text else {}
