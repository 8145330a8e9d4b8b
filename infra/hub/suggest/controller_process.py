"""The controller as a child process: started when first asked, restarted with back-off when it dies.

Speaks the JSON lines of `python -m prunefleet.infra.controller`: the hub loads none of its libraries.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunefleet.objective.processes import python_module

COMMAND = tuple(python_module("prunefleet.infra.controller", flags=("-W", "ignore")))
ANSWER_S = 180.0  # a child that takes longer is stuck
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
NICE = 5  # how far the child stands back behind the hub; further, and busy trials on the same machine would starve it
STOP_S = 1.0  # how long each tier of ending the child may take
_SLICE_S = 0.2  # how often a wait looks whether it should end
_CHUNK = 1 << 16


class ChildFailed(Exception):
    """The child died, was stuck or was told to stop; the message says which. Asking again starts another."""


class ControllerProcess:
    """Answers one request at a time; for use by one thread, except `stop`."""

    def __init__(self, command: Sequence[str] = COMMAND, answer_s: float = ANSWER_S) -> None:
        self._command, self._answer_s = tuple(command), answer_s
        self._child: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._failures = 0
        self._not_before = 0.0
        self._stopping = threading.Event()

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        child = self._child
        return None if child is None or child.poll() is not None else child.pid

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The child's answer to `request`. Raises `ChildFailed`; the next call waits before it starts another."""
        try:
            self._ensure()
            answer = self._exchange(request)
        except (ChildFailed, OSError, json.JSONDecodeError) as error:
            self._failed()
            raise ChildFailed(str(error)) from error
        self._failures = 0
        return answer

    def start(self) -> None:
        """Start the child ahead of the first request, so that loading its libraries costs nobody time."""
        if self.pid is None and time.monotonic() >= self._not_before:
            self._launch()

    def stop(self) -> None:
        """End the child in tiers: no more input, terminate, kill."""
        self._stopping.set()
        self._end()

    def _ensure(self) -> None:
        if self._child is not None and self._child.poll() is None:
            return
        self._stopping.wait(max(0.0, self._not_before - time.monotonic()))
        if self._stopping.is_set():
            raise ChildFailed("the hub is stopping")
        self._launch()

    def _launch(self) -> None:
        self._end()
        self._buffer = b""
        # The terminal's Ctrl-C is for the hub, which then ends its child in order: hence a session of its own.
        self._child = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(), start_new_session=True
        )
        _stand_back(self._child.pid)

    def _exchange(self, request: Mapping[str, Any]) -> dict[str, Any]:
        child = self._child
        assert child is not None and child.stdin is not None
        child.stdin.write(json.dumps(request).encode() + b"\n")
        child.stdin.flush()
        deadline = time.monotonic() + self._answer_s
        while True:
            answer = json.loads(self._line(child, deadline))
            if isinstance(answer, dict) and answer.get("id") == request["id"]:
                return answer

    def _line(self, child: subprocess.Popen[bytes], deadline: float) -> bytes:
        assert child.stdout is not None
        while b"\n" not in self._buffer:
            if self._stopping.is_set():
                raise ChildFailed("the hub is stopping")
            if time.monotonic() > deadline:
                raise ChildFailed(f"the controller gave no answer within {self._answer_s:g} s")
            if select.select([child.stdout], [], [], _SLICE_S)[0]:
                self._buffer += self._chunk(child.stdout.fileno())
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _chunk(self, descriptor: int) -> bytes:
        chunk = os.read(descriptor, _CHUNK)
        if not chunk:
            raise ChildFailed("the controller's process ended")
        return chunk

    def _failed(self) -> None:
        self._end()
        pause = min(FIRST_PAUSE_S * 2**self._failures, LONGEST_PAUSE_S)
        self._failures += 1
        self._not_before = time.monotonic() + pause

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        for step in (_close_input, subprocess.Popen.terminate, subprocess.Popen.kill):
            step(child)
            try:
                child.wait(STOP_S if child.poll() is None else 0)
                break
            except subprocess.TimeoutExpired:
                continue
        if child.stdout is not None:
            child.stdout.close()


def _close_input(child: subprocess.Popen[bytes]) -> None:
    try:
        if child.stdin is not None:
            child.stdin.close()
    except OSError:  # what was still to be written has no reader any more
        return


def _stand_back(pid: int) -> None:
    """Heartbeats and rows come first. A session of its own is a scheduling group of its own, with its own niceness."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, NICE)
        Path(f"/proc/{pid}/autogroup").write_text(str(NICE))


def _environment() -> dict[str, str]:
    """Return the hub's environment with one thread for each library, so that sums do not depend on the machine."""
    return {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")}
