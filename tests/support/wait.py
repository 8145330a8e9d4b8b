"""Waiting on a condition, with an end."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
SOONEST, LATEST = 0.02, 0.25
"""Seconds between two looks: the longer something takes, the less it matters to hear of it at once."""
SHARE = 1 / 20
"""Of the time waited so far, until the next look."""


def wait_for(condition: Callable[[], T], seconds: float = 60.0, every: float | None = None) -> T:
    """What `condition` returns once it is true; an AssertionError naming it after `seconds`.

    It is asked `every` so many seconds, or less and less often: many conditions are requests to a server or a look at
    all processes, and would keep a core busy.
    """
    began = time.monotonic()
    while not (value := condition()):
        spent = time.monotonic() - began
        assert spent < seconds, f"waited {seconds} s for {condition}"
        time.sleep(min(max(SOONEST, SHARE * spent), LATEST) if every is None else every)
    return value
