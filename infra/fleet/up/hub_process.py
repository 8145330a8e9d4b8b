"""The hub as a child of `prunefleet up`: started, waited for, started again when it dies."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prunefleet.infra.fleet.supervision.process import Child, stop_all
from prunefleet.infra.fleet.up.agent_commands import StepFailed
from prunefleet.objective.processes import python_module

START_SECONDS = 60.0
STOP_PATIENCE = 15.0


class HubProcess:
    """One hub over DATA/hub; `url` stays the same over restarts, for agents elsewhere know it."""

    def __init__(self, data: Path, host: str, port: int) -> None:
        self._data, self._host, self._port = data, host, port
        self._ready = data / "hub.ready.json"
        self.child: Child | None = None
        self.admin_token = ""

    def start(self, check: Callable[[], None]) -> dict[str, Any]:
        """Start it and wait until it accepts connections; returns what it says of itself. Raises `StepFailed`."""
        self._end_left_over()
        self._ready.unlink(missing_ok=True)
        options = ["--data", str(self._data / "hub"), "--host", self._host, "--port", str(self._port)]
        argv = python_module("prunefleet.infra.cli", "hub", *options, "--ready-file", str(self._ready))
        log = self._data / "logs" / "hub.log"
        self.child = Child("hub", argv, os.environ, log, Path.cwd())
        return self._wait(self.child, check)

    def _wait(self, child: Child, check: Callable[[], None]) -> dict[str, Any]:
        until = time.monotonic() + START_SECONDS
        while not self._ready.exists():
            check()
            if child.wait(0.1):
                raise StepFailed(child.last_line() or f"the hub ended at once (log: {child.log})", child.ended() or 1)
            if time.monotonic() > until:
                raise StepFailed(f"the hub was not ready in {START_SECONDS:.0f} s (log: {child.log})", 1)
        ready = dict(json.loads(self._ready.read_text()))
        self.admin_token = str(ready["admin_token"])
        self._port = urlsplit(ready["url"]).port or self._port  # a hub that is started again must be where it was
        return ready

    def tend(self, check: Callable[[], None]) -> bool:
        """Start it again if it died; returns whether that was needed."""
        if self.child is None or self.child.ended() is None:
            return False
        self.start(check)
        return True

    def stop(self) -> None:
        """End it; it finishes what it has accepted."""
        if self.child is not None:
            stop_all([self.child], STOP_PATIENCE)
            self._ready.unlink(missing_ok=True)

    def _end_left_over(self) -> None:
        """A hub that outlived a killed `up` is ours to replace: end it, for it holds the folder and the port."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            pid = int(json.loads(self._ready.read_text())["pid"])
            if b"prunefleet.infra.cli" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGTERM)
                until = time.monotonic() + STOP_PATIENCE
                while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
                    time.sleep(0.1)
