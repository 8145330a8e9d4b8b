"""Asking a server that may be away for a while: of what a process asks itself the client gives up within seconds."""

import time
from collections.abc import Callable
from typing import TypeVar

from prunefleet.agent.host.failures import explain
from prunefleet.agent.tracking.probe import is_away
from prunefleet.objective.trial import FailureKind

LOOK_S = 1.0
T = TypeVar("T")


def outlasting(ask: Callable[[], T], seconds: float, check: Callable[[], None] = lambda: None) -> T:
    """Return what the server answers; ask one that is away again for `seconds`, then raise its failure.

    `check` is called between two attempts and may raise. A not-found answer is raised at once. What fails three times
    while the server answers is raised too: the client reports a silent server as a refused key, and a client whose own
    process was killed fails for ever.
    """
    until, answered = time.monotonic() + seconds, 0
    while True:
        try:
            return ask()
        except Exception as error:
            away = explain(error, "server").kind is FailureKind.SERVER and not lacks(error)
            if not away or time.monotonic() > until:
                raise
            answered = 0 if is_away() else answered + 1
            if answered > 2:  # the first may have been before it was back
                raise
        check()
        time.sleep(LOOK_S)


def lacks(error: Exception) -> bool:
    """Whether the server has answered that it has no such thing: the client wraps its own `ValueError` for that."""
    return isinstance(getattr(error, "exc", None), ValueError)
