"""How trials end on one host, a line of JSON each in a file: who supervises agents there learns whether it is ill.

``PRUNEFLEET_OUTCOMES`` names the file to trials and measurements; without it nothing is noted.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from prunefleet.objective.errors import BadInput
from prunefleet.objective.plain import Plain
from prunefleet.objective.trial import Failure, FailureKind

VARIABLE = "PRUNEFLEET_OUTCOMES"


@dataclass(frozen=True)
class HostOutcome(Plain):
    """How one run ended on this host; ``failure`` is None where it came to an answer."""

    run: str
    failure: Failure | None = None

    @property
    def blames_host(self) -> bool:
        """Whether the host was at fault."""
        return self.failure is not None and self.failure.kind.blames_host


def note(run: str, failure: Failure | None = None) -> None:
    """Add a line where somebody wants it; a full disk loses the line and nothing else.

    What was interrupted says nothing of the host, and is left out.
    """
    path = os.environ.get(VARIABLE)
    if not path or (failure is not None and failure.kind is FailureKind.INTERRUPTED):
        return
    line = json.dumps(HostOutcome(run, failure).to_json()) + "\n"
    with contextlib.suppress(OSError), Path(path).open("ab", buffering=0) as file:  # one write: lines never mix
        file.write(line.encode())


def read(path: Path, start: int = 0) -> tuple[list[HostOutcome], int]:
    """Return the outcomes behind byte ``start``, oldest first, and where to go on; damaged lines are left out."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            content = file.read()
    except OSError:
        return [], start
    whole = content[: content.rfind(b"\n") + 1]
    found = []
    for line in whole.splitlines():
        with contextlib.suppress(ValueError, BadInput, TypeError):
            found.append(HostOutcome.from_json(json.loads(line)))
    return found, start + len(whole)
