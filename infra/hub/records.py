"""What a hub knows: projects, sweeps, agents and runs by their names and ids. Each read sees one consistent state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from prunefleet.infra.hub.runs import heartbeat as agents
from prunefleet.infra.hub.runs import runs, sweeps
from prunefleet.infra.hub.store import statements
from prunefleet.infra.hub.store.database import Store
from prunefleet.infra.hub.store.errors import Missing
from prunefleet.infra.hub.store.rows import AgentRow, ProjectRow, RunRow, SweepRow, SweepState

T = TypeVar("T")


class Records:
    """The rows of one store. A name that is not there gives None, an id that is not there raises `Missing`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def _read(self, work: Callable[..., T], *args: Any) -> T:
        with self._store.read() as connection:
            return work(connection, *args)

    def projects(self, entity: str | None = None) -> list[ProjectRow]:
        """All projects, or one entity's, newest first."""
        return self._read(statements.projects, entity)

    def project(self, entity: str, name: str) -> ProjectRow | None:
        """One project."""
        return self._read(statements.project, entity, name)

    def sweeps(self, entity: str, project: str) -> list[SweepRow]:
        """A project's sweeps, newest first."""
        return self._read(statements.sweeps, entity, project)

    def sweep(self, entity: str, project: str, name: str) -> SweepRow | None:
        """One sweep."""
        return self._read(statements.sweep_named, entity, project, name)

    def find_sweep(self, entity: str, project: str, name: str) -> SweepRow:
        """One sweep. Raises `Missing`."""
        found = self.sweep(entity, project, name)
        if found is None:
            raise Missing(f"sweep: {entity}/{project}/{name} is not here; look at its address")
        return found

    def sweeps_in(self, state: SweepState) -> list[SweepRow]:
        """All sweeps in that state, of all projects."""
        return self._read(statements.sweeps_in, state)

    def sweep_by_id(self, sweep_id: int) -> SweepRow:
        """One sweep. Raises `Missing`."""
        return self._read(sweeps.reread, sweep_id)

    def prior_runs(self, sweep_id: int) -> list[RunRow]:
        """Return the runs that the sweep was told of when it was made."""
        return self._read(statements.prior_runs, sweep_id)

    def sweep_agents(self, sweep_id: int) -> list[AgentRow]:
        """A sweep's agents, oldest first."""
        return self._read(statements.sweep_agents, sweep_id)

    def held_hosts(self, sweep_id: int) -> list[str]:
        """Hosts whose agents a sweep holds, those too that join later."""
        return self._read(statements.held_hosts, sweep_id)

    def agent_by_id(self, agent_id: int) -> AgentRow:
        """One agent. Raises `Missing`."""
        return self._read(agents.reread, agent_id)

    def agent_runs(self, agent_id: int) -> list[RunRow]:
        """The runs an agent holds or held last, by creation."""
        return self._read(statements.agent_runs, agent_id)

    def run(self, entity: str, project: str, name: str) -> RunRow | None:
        """One run."""
        return self._read(statements.run_named, entity, project, name)

    def run_by_id(self, run_id: int) -> RunRow:
        """One run. Raises `Missing`."""
        return self._read(runs.reread, run_id)

    def runs(self, entity: str, project: str) -> list[RunRow]:
        """A project's runs by creation."""
        return self._read(statements.runs, entity, project)
