"""What the pages ask of the hub: what there is, who is asking, and what they ask of agents."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from prunefleet.infra.hub.runs.advice import Advice
from prunefleet.infra.hub.store.file_rows import ArtifactRow, FileRow
from prunefleet.infra.hub.store.rows import AgentRow, ProjectRow, RunRow, SweepRow, UserRow
from prunefleet.infra.hub.users.access import may, seen
from prunefleet.infra.hub.users.host_keys import Invitation

T = TypeVar("T")


class RunFiles(Protocol):
    """Files that runs saved."""

    def listed(self, run_id: int) -> Sequence[FileRow]:
        """A run's files."""
        ...


class RunArtifacts(Protocol):
    """Artifacts that runs logged."""

    def outputs(self, run_id: int) -> Sequence[ArtifactRow]:
        """The artifacts that a run logged."""
        ...


class Listing(Protocol):
    """Lists of runs that stay cheap when they are long."""

    def runs(self, project_id: int, allowed: Mapping[str, Sequence[str]]) -> Iterable[RunRow]:
        """A project's runs whose columns have one of the values allowed."""
        ...

    def loose(self, project_id: int, most: int) -> Sequence[RunRow]:
        """A project's newest runs without a sweep, newest first."""
        ...

    def number_in_sweep(self, run_id: int) -> int:
        """The how-manieth run of its sweep a run is."""
        ...

    def derived(self, sweep_id: int, key: Hashable, make: Callable[[Sequence[RunRow]], T]) -> T:
        """What `make` makes of a sweep's runs, made again only when one of them changed."""
        ...


class Joins(Protocol):
    """How hosts are let in."""

    def invite(self, sweep: SweepRow) -> Invitation:
        """A token for a host of the sweep."""
        ...


class Hub(Protocol):
    """The hub as the dashboard sees it. Reads of one thing give None where there is no such thing."""

    @property
    def changes(self) -> int:
        """A counter that grows whenever a page may have changed."""
        ...

    @property
    def files(self) -> RunFiles:
        """Files of runs."""
        ...

    @property
    def artifacts(self) -> RunArtifacts:
        """Artifacts of runs."""
        ...

    @property
    def joins(self) -> Joins:
        """How hosts are let in."""
        ...

    @property
    def listing(self) -> Listing:
        """Lists of runs."""
        ...

    def projects(self, entity: str | None = None) -> Sequence[ProjectRow]:
        """All projects, or one entity's."""
        ...

    def sweeps(self, entity: str, project: str) -> Sequence[SweepRow]:
        """A project's sweeps."""
        ...

    def sweep(self, entity: str, project: str, name: str) -> SweepRow | None:
        """One sweep."""
        ...

    def sweep_runs(self, sweep_id: int) -> Sequence[RunRow]:
        """A sweep's runs by creation."""
        ...

    def sweep_agents(self, sweep_id: int) -> Sequence[AgentRow]:
        """A sweep's agents."""
        ...

    def held_hosts(self, sweep_id: int) -> Sequence[str]:
        """Hosts whose agents a sweep holds, those too that join later."""
        ...

    def hold_agents(self, sweep_id: int, action: str, target: str) -> Sequence[AgentRow]:
        """Pause, resume, drain or stop an agent, or all of a host."""
        ...

    def advice(self, sweep_id: int) -> Advice:
        """What the sweep's search says of it."""
        ...

    def run(self, entity: str, project: str, name: str) -> RunRow | None:
        """One run."""
        ...

    def history(self, run_id: int, after_line: int = 0) -> Sequence[dict[str, Any]]:
        """A run's history rows from a line on."""
        ...

    def console(self, run_id: int, last: int = 500) -> Sequence[str]:
        """The last lines of a run's console."""
        ...

    def user(self, username: str) -> UserRow | None:
        """The user of that name."""
        ...

    def user_of_key(self, key: str) -> str | None:
        """Whose key this is."""
        ...

    def user_of_ticket(self, ticket: str) -> str | None:
        """For whom a sign-in link was made, while it lasts."""
        ...

    def user_of_session(self, cookie: str) -> str | None:
        """Whose cookie this is, while it lasts."""
        ...

    def session_of(self, username: str, ttl_s: float) -> str:
        """A signed cookie for a user."""
        ...


class Seen:
    """The hub as one user sees it: what belongs to another's entity is not there. Ids come from what was seen."""

    def __init__(self, hub: Hub, user: UserRow) -> None:
        self.all = hub
        self._user = user

    def projects(self, entity: str | None = None) -> Sequence[ProjectRow]:
        """The user's projects, all for an administrator; or those of one entity."""
        return seen(self._user, self.all.projects(entity))

    def sweeps(self, entity: str, project: str) -> Sequence[SweepRow]:
        """A project's sweeps."""
        return self.all.sweeps(entity, project) if may(self._user, entity) else []

    def sweep(self, entity: str, project: str, name: str) -> SweepRow | None:
        """One sweep."""
        return self.all.sweep(entity, project, name) if may(self._user, entity) else None

    def run(self, entity: str, project: str, name: str) -> RunRow | None:
        """One run."""
        return self.all.run(entity, project, name) if may(self._user, entity) else None
