"""The hub: its parts, and the changes that the wire and the pages ask for.

Reads are those of its parts: `records`, `listing`, `run_lines` and others. Writes return once they are on disk. States
change in `lifecycle.py` alone, as the tables of `states.py` say; this class puts a transaction around each change and
wakes the controller after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, TypeVar

from prunefleet.infra.controller.contract import Exhausted, Suggestion
from prunefleet.infra.hub.artifacts.api import Artifacts
from prunefleet.infra.hub.artifacts.run_files import Files
from prunefleet.infra.hub.records import Records
from prunefleet.infra.hub.runs import heartbeat as agents
from prunefleet.infra.hub.runs import holds, lifecycle, reaper, run_queue, runs, sweeps
from prunefleet.infra.hub.runs.advice import Advice
from prunefleet.infra.hub.runs.early_stop import EarlyStopping
from prunefleet.infra.hub.runs.heartbeat import Command
from prunefleet.infra.hub.runs.lifecycle import Timeouts
from prunefleet.infra.hub.runs.listing import Listing
from prunefleet.infra.hub.runs.run_edits import RunEdits
from prunefleet.infra.hub.runs.run_lines import RunLines
from prunefleet.infra.hub.runs.runs import RunChange, StreamPost
from prunefleet.infra.hub.runs.sweeps import SweepChange
from prunefleet.infra.hub.store import statements
from prunefleet.infra.hub.store.blobs import Blobs
from prunefleet.infra.hub.store.database import Connection, Store
from prunefleet.infra.hub.store.errors import HubError, Missing
from prunefleet.infra.hub.store.rows import AgentRow, ProjectRow, RunRow, SweepRow, UserRow
from prunefleet.infra.hub.users import projects
from prunefleet.infra.hub.users.access import Access
from prunefleet.infra.hub.users.auth import Auth
from prunefleet.infra.hub.users.host_keys import HostKeys
from prunefleet.infra.hub.users.limits import Limits, Turnstile

T = TypeVar("T")


class Suggester(Protocol):
    """Thinks ahead of the agents, in a process of its own; neither call waits."""

    def take(self, sweep_id: int) -> Suggestion | Exhausted | None:
        """The suggestion that is ready for the sweep, to be used now; None where there is none yet."""
        ...

    def poke(self, sweep_id: int) -> None:
        """A run of the sweep came, ended or was not made after all: think again."""
        ...

    def advice(self, sweep_id: int) -> Advice:
        """What its search has to say of a sweep so far."""
        ...

    @property
    def said(self) -> int:
        """How often it had something else to say."""
        ...


class NoSuggester:
    """Never has a suggestion; for tools that only read."""

    def take(self, sweep_id: int) -> None:
        """Nothing."""

    def poke(self, sweep_id: int) -> None:
        """Nothing."""

    def advice(self, sweep_id: int) -> Advice:
        """Nothing."""
        return Advice()

    @property
    def said(self) -> int:
        """Never."""
        return 0


class Hub:
    """One data folder: its parts, and what changes sweeps, agents and runs."""

    def __init__(
        self,
        store: Store,
        suggester: Suggester | None = None,
        timeouts: Timeouts | None = None,
        clock: Callable[[], float] = time.time,
        limits: Limits | None = None,
    ) -> None:
        self.store = store
        self.suggester: Suggester = suggester or NoSuggester()
        self.timeouts = timeouts or Timeouts()
        self.limits = limits or Limits()
        self.clock = clock
        self.access = Access(store)
        self.auth = Auth.of(store, clock)
        self.host_keys = HostKeys(store, self.auth, clock)
        self.files = Files(store, Blobs(store.folder / "blobs", self.limits.file), clock)
        self.artifacts = Artifacts(store, self.files.blobs, clock)
        self.records = Records(store)
        self.listing = Listing(store)
        self.run_lines = RunLines(store)
        self.early_stop = EarlyStopping(store, clock)
        self.run_edits = RunEdits(store, clock)
        self.started_at = clock()

    @property
    def changes(self) -> int:
        """A counter that grows with every commit, and with everything new that a search has to say."""
        return self.store.changes.value + self.suggester.said

    def ensure_project(self, user: UserRow, entity: str | None, name: str | None) -> ProjectRow:
        """The project, made if it is new."""
        return self.store.write(lambda c: projects.ensure(c, user, entity, name, self.clock()))

    def begin_run(self, user: UserRow, change: RunChange, run_id: int | None = None) -> tuple[RunRow, bool]:
        """A run speaks of itself (`wandb.init`, or a changed configuration); returns it and whether it is new."""
        return self.store.write(lambda c: runs.begin(c, user, change, run_id, self.clock(), self.limits))

    def revise_run(self, run_id: int, change: RunChange) -> RunRow:
        """Change what is known of a run, not its state."""
        return self.store.write(lambda c: runs.revise(c, run_id, change))

    def stream(self, entity: str, project: str, name: str, post: StreamPost) -> RunRow:
        """Store a message of a run's stream; the run as it is then (its stop flag is the answer)."""

        def work(connection: Connection) -> RunRow:
            found = statements.run_named(connection, entity, project, name)
            if found is None:
                raise Missing(runs.run_is_gone(entity, project, name))
            return runs.stream(connection, found, post, self.clock())

        run = self.store.write(work)
        if post.complete and run.sweep:
            self._poke(run)
        return run

    def stop_run(self, run_id: int) -> RunRow:
        """Ask a run to stop."""
        self.store.write(lambda c: lifecycle.request_stop(c, runs.reread(c, run_id), self.clock()))
        return self.records.run_by_id(run_id)

    def create_sweep(self, user: UserRow, change: SweepChange) -> SweepRow:
        """A new sweep, PENDING."""
        return self.store.write(lambda c: sweeps.create(c, user, change, self.clock()))

    def revise_sweep(self, sweep_id: int, change: SweepChange) -> SweepRow:
        """Change a sweep's configuration, names or state."""

        def work(connection: Connection) -> SweepRow:
            if change.controller is not None:  # may ask for a further run
                self.limits.check_room_of(connection, sweep_id)
            return sweeps.revise(connection, sweep_id, change, self.clock())

        sweep = self.store.write(work)
        self.suggester.poke(sweep_id)
        return sweep

    def enqueue(self, sweep_id: int, config: Mapping[str, Any], display_name: str | None = None) -> RunRow:
        """Add a run at the end of a sweep's queue.

        Raises `Missing`, `Conflict` for a sweep that takes none, `Denied` where its project or owner has too many.
        """

        def work(connection: Connection) -> RunRow:
            self.limits.check_room_of(connection, sweep_id)
            sweep = sweeps.reread(connection, sweep_id)
            return run_queue.enqueue(connection, sweep, config, display_name, self.clock())

        return self.store.write(work)

    def delete_sweep(self, sweep_id: int) -> None:
        """Forget a sweep and its agents; its runs stay."""
        self.store.write(lambda c: sweeps.delete(c, sweep_id, self.clock()))

    def register_agent(self, user: UserRow, entity: str | None, project: str | None, sweep: str, host: str) -> AgentRow:
        """A new agent of a sweep; the first one starts it."""
        found = self.store.write(lambda c: agents.register(c, user, entity, project, sweep, host, self.clock()))
        self.suggester.poke(found.sweep_id)
        return found

    def hold_agents(self, sweep_id: int, action: str, target: str) -> list[AgentRow]:
        """Pause, resume, drain or stop an agent of a sweep, or all of a host; those that it concerns."""
        found = self.store.write(lambda c: holds.ask(c, sweep_id, action, target, self.clock()))
        self.suggester.poke(sweep_id)
        return found

    def left_behind(self, sweep_id: int, host: str, names: Collection[str]) -> tuple[list[RunRow], list[RunRow]]:
        """End the runs that a host says it left behind; those ended, and those that were heard a moment ago."""

        def ended(c: Connection) -> tuple[list[RunRow], list[RunRow]]:
            return reaper.left_behind(c, sweeps.reread(c, sweep_id), host, names, self.timeouts, self.clock())

        found = self.store.write(ended)
        self.suggester.poke(sweep_id)
        return found

    def heartbeat(self, agent_id: int, listed: Collection[str]) -> Command | None:
        """Hear an agent that runs `listed`; what it is to do now, if anything."""
        room = Turnstile(self.limits, self.suggester.take)

        def work(connection: Connection) -> agents.Orders:
            def offer(sweep_id: int) -> Suggestion | Exhausted | None:
                return room.enter(connection, sweep_id)

            return agents.heartbeat(connection, agent_id, listed, offer, self.timeouts, self.clock())

        try:
            orders = self.store.write(work)
        except HubError:
            if room.taken_for is not None:
                self.suggester.poke(room.taken_for)  # what was taken was not used
            raise
        if orders.moved:
            self.suggester.poke(orders.sweep_id)
        room.tell()
        return orders.command

    def reap(self) -> int:
        """End what was not heard of for too long; the number of runs ended."""
        with self.store.read() as connection:
            if not reaper.overdue(connection, self.timeouts, self.started_at, self.clock()):
                return 0
        ended = self.store.write(lambda c: reaper.reap(c, self.timeouts, self.started_at, self.clock()))
        for run in ended:
            self._poke(run)
        return len(ended)

    def _poke(self, run: RunRow) -> None:
        sweep = self.records.sweep(run.entity, run.project, run.sweep) if run.sweep else None
        if sweep is not None:
            self.suggester.poke(sweep.id)
