"""How much a client may bring: sizes of requests and files, numbers of runs. A refusal says which setting to raise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from prunefleet.infra.hub.store.database import Connection, one, scalar
from prunefleet.infra.hub.store.errors import Denied, StartupError

T = TypeVar("T")
MIB = 1 << 20
LEAST_BODY = 32 * MIB  # one message of the client's stream has up to 16 MiB, and it gives up what is refused


@dataclass(frozen=True)
class Limits:
    """Bytes of a request and of an uploaded file, runs of a project and a user. Raises `StartupError` for too few."""

    body: int = 64 * MIB
    file: int = 16384 * MIB
    runs_project: int = 100_000
    runs_user: int = 1_000_000

    def __post_init__(self) -> None:
        if self.body < LEAST_BODY:
            raise StartupError(f"max body mb: got {self.body // MIB}; give at least {LEAST_BODY // MIB}")
        for name in ("file", "runs_project", "runs_user"):
            if getattr(self, name) < 1:
                raise StartupError(f"max {name.replace('_', ' ')}: got {getattr(self, name)}; give at least 1")

    def check_room(self, connection: Connection, project_id: int, user_id: int) -> None:
        """Raises `Denied` where one more run would be too many for its project or its user."""
        sql = "SELECT COUNT(*) FROM run WHERE "
        for what, limit, where, value in (
            ("project", self.runs_project, "project_id = :v", project_id),
            ("user", self.runs_user, "user_id = :v", user_id),
        ):
            found = int(scalar(connection, sql + where, v=value))
            if found >= limit:
                raise Denied(
                    f"runs: this {what} has {found}, and the hub takes {limit}; "
                    f"delete old ones, or start the hub with a higher --max-runs-{what}"
                )

    def check_room_of(self, connection: Connection, sweep_id: int) -> None:
        """Raises `Denied` where one more run of that sweep would be too many for its project or its owner."""
        owner = one(connection, "SELECT project_id, user_id FROM sweep WHERE id = :id", id=sweep_id)
        if owner is not None:
            self.check_room(connection, owner["project_id"], owner["user_id"])


class Turnstile(Generic[T]):
    """Lets a sweep have a further run where there is room; where there is none, tells it once all else is settled."""

    def __init__(self, limits: Limits, take: Callable[[int], T]) -> None:
        self._limits = limits
        self._take = take
        self.taken_for: int | None = None
        self._refusal: Denied | None = None

    def enter(self, connection: Connection, sweep_id: int) -> T | None:
        """Return what the sweep's next run is to try, if it may have one; `taken_for` is the sweep from then on."""
        try:
            self._limits.check_room_of(connection, sweep_id)
        except Denied as error:
            self._refusal = error
            return None
        self.taken_for = sweep_id
        return self._take(sweep_id)

    def tell(self) -> None:
        """Raises `Denied` where there was no room."""
        if self._refusal is not None:
            raise self._refusal
