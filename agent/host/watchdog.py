"""Ends a trial that hangs where it cannot look at the clock: in a driver, in a task's own loop, in a lost network."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable

GRACE_S = 60.0
"""For a trial that looks at the clock to end by itself."""


class Watchdog(threading.Thread):
    """Calls `bark` and ends the process with exit code 1 if it is not called off by `deadline` (`time.monotonic`)."""

    def __init__(self, deadline: float, bark: Callable[[], None]) -> None:
        super().__init__(daemon=True, name="watchdog")
        self._deadline, self._bark, self._off = deadline, bark, threading.Event()

    def run(self) -> None:
        """Wait for the deadline or to be called off."""
        if self._off.wait(max(0.0, self._deadline - time.monotonic())):
            return
        with contextlib.suppress(Exception):  # the server may be what is lost
            self._bark()
        sys.stderr.flush()
        os._exit(1)

    def call_off(self) -> None:
        """The trial has come to its end."""
        self._off.set()
