"""Pure: what a sweep's runs say of their hosts' own speed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from prunefleet.infra.dashboard.text import number
from prunefleet.infra.hub.store.rows import RunRow
from prunefleet.objective.devices import DRIFTED, REFERENCE


@dataclass(frozen=True)
class HostSpeed:
    """What the reference network takes on a host's device, as its latest run says: milliseconds, at first and now."""

    host: str
    device: str
    first_ms: float
    ms: float
    said_at: datetime

    @property
    def change(self) -> float:
        """How much longer it takes than at first: 0.1 is a tenth."""
        return self.ms / self.first_ms - 1

    @property
    def drifted(self) -> bool:
        """Whether that is more than sittings differ by."""
        return abs(self.change) > DRIFTED


def host_speeds(runs: Iterable[RunRow]) -> tuple[HostSpeed, ...]:
    """Runs in order of creation → the latest word of each host and device that told any, by name."""
    found = {(said.host, said.device): said for run in runs if (said := _said(run))}
    return tuple(found[key] for key in sorted(found))


def _said(run: RunRow) -> HostSpeed | None:
    told = run.summary.get(REFERENCE)
    if not isinstance(told, Mapping) or not run.host:
        return None
    first, now = number(told.get("first_ms")), number(told.get("ms"))
    if not first or not now or first < 0 or now < 0:
        return None
    return HostSpeed(run.host, str(told.get("device", "")), first, now, run.finished_at or run.created_at)
