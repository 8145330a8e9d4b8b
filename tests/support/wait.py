"""Waiting on a condition, with an end."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], seconds: float = 20.0, every: float = 0.05) -> T:
    """What `condition` returns once it is true; an AssertionError naming it after `seconds`."""
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, f"waited {seconds} s for {condition}"
        time.sleep(every)
    return value
