"""The hub as one user of the pages sees it."""

from collections.abc import Sequence

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.store.rows import ProjectRow, RunRow, SweepRow, UserRow
from prunefleet.infra.hub.users.access import may, seen


class Seen:
    """The hub as one user sees it: what belongs to another's entity is not there. Ids come from what was seen."""

    def __init__(self, hub: Hub, user: UserRow) -> None:
        self.all = hub
        self._user = user

    def projects(self, entity: str | None = None) -> Sequence[ProjectRow]:
        """The user's projects, all for an administrator; or those of one entity."""
        return seen(self._user, self.all.records.projects(entity))

    def sweeps(self, entity: str, project: str) -> Sequence[SweepRow]:
        """A project's sweeps."""
        return self.all.records.sweeps(entity, project) if may(self._user, entity) else []

    def sweep(self, entity: str, project: str, name: str) -> SweepRow | None:
        """One sweep."""
        return self.all.records.sweep(entity, project, name) if may(self._user, entity) else None

    def run(self, entity: str, project: str, name: str) -> RunRow | None:
        """One run."""
        return self.all.records.run(entity, project, name) if may(self._user, entity) else None
