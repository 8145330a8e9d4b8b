"""The controller's child process: one that is stuck, and one that is told to end while it is asked."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from prunefleet.infra.hub.suggest.controller_process import ChildFailed, ControllerProcess

from support.wait import wait_for


def test_stuck_child() -> None:
    """A child that never answers is ended after the time given, and the next request gets another."""
    process = ControllerProcess((sys.executable, "-c", "import time; time.sleep(60)"), answer_s=0.3)
    with pytest.raises(ChildFailed, match="no answer"):
        process.ask({"id": 1})
    assert process.pid is None
    process.stop()


def test_stopped_while_asked() -> None:
    """A hub that stops does not wait for an answer, and leaves no child behind."""
    process = ControllerProcess((sys.executable, "-c", "import time; time.sleep(60)"))
    failures: list[str] = []

    def ask() -> None:
        try:
            process.ask({"id": 1})
        except ChildFailed as error:
            failures.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    pid = wait_for(lambda: process.pid)
    process.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert failures
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
