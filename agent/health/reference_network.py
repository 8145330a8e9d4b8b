"""How fast this host is beside how fast it was: what it remembers of the reference network. Nothing is timed here."""

import time
from collections.abc import Iterator

from prunefleet.agent.health.finding import OK, WARNING, Finding, graded
from prunefleet.agent.host.cache_files import cache_folder
from prunefleet.objective.devices import DRIFTED

REMEDY = (
    "look for heat, other work, a clock that is held down, or new software; `rm {path}` makes today's the first one"
)


def reference() -> Iterator[Finding]:
    """The latest figure of each device beside its first one; nothing where OpenVINO is not there to have told any."""
    try:
        from prunefleet.agent.measure.reference import FOLDER, kept
    except (ImportError, OSError, RuntimeError):  # told by the finding on OpenVINO
        return
    paths = sorted((cache_folder() / FOLDER).glob("*.json"))
    for path in paths:
        if found := kept(path.stem):
            days = max(0.0, time.time() - found.at) / 86400
            then = f"{found.first_ms:.3f} ms at first, {found.ms:.3f} ms {days:.1f} days ago, {found.change:+.1%}"
            drifted = abs(found.change) > DRIFTED
            yield graded(f"reference ({found.device})", then, (drifted, WARNING, REMEDY.format(path=path)))
    if not paths:
        yield Finding("reference", OK, "not timed yet: this host's first trial or measurement does it")
