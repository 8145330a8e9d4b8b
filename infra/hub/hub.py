"""The hub: what the wire and the pages may ask of it.

Reads see one consistent state each. Writes return once they are on disk. States change in `lifecycle.py` alone, as
the tables of `states.py` say; this class puts a transaction around each change and wakes the controller after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, TypeVar

from prunefleet.infra.controller.contract import Exhausted, Suggestion
from prunefleet.infra.hub.artifacts.api import Artifacts
from prunefleet.infra.hub.artifacts.run_files import Files
from prunefleet.infra.hub.runs import heartbeat as agents
from prunefleet.infra.hub.runs import holds, lifecycle, reaper, run_queue, runs, sweeps
from prunefleet.infra.hub.runs.advice import Advice
from prunefleet.infra.hub.runs.early_stop import EarlyStopping
from prunefleet.infra.hub.runs.heartbeat import Command
from prunefleet.infra.hub.runs.lifecycle import Timeouts
from prunefleet.infra.hub.runs.listing import Listing
from prunefleet.infra.hub.runs.run_edits import RunEdits
from prunefleet.infra.hub.runs.runs import RunChange, StreamPost
from prunefleet.infra.hub.runs.sweeps import SweepChange
from prunefleet.infra.hub.store import lines as store_lines
from prunefleet.infra.hub.store import statements
from prunefleet.infra.hub.store.blobs import Blobs
from prunefleet.infra.hub.store.database import Connection, Store
from prunefleet.infra.hub.store.errors import HubError, Missing
from prunefleet.infra.hub.store.lines import Stream
from prunefleet.infra.hub.store.rows import AgentRow, ProjectRow, RunRow, SweepRow, SweepState, UserRow
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
    """One data folder's sweeps and runs."""

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
        self.listing = Listing(store)
        self.early_stop = EarlyStopping(store, clock)
        self.run_edits = RunEdits(store, clock)
        self.started_at = clock()

    # Reads

    @property
    def changes(self) -> int:
        """A counter that grows with every commit, and with everything new that a search has to say."""
        return self.store.changes.value + self.suggester.said

    def _read(self, work: Callable[..., T], *args: Any) -> T:
        with self.store.read() as connection:
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

    def sweep_runs(self, sweep_id: int) -> list[RunRow]:
        """A sweep's runs by creation."""
        return self.listing.sweep_runs(sweep_id)

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

    def history(self, run_id: int, after_line: int = 0) -> list[dict[str, Any]]:
        """A run's history rows from that line on."""
        return self._rows(run_id, Stream.HISTORY, after_line)

    def events(self, run_id: int) -> list[dict[str, Any]]:
        """A run's rows of system metrics."""
        return self._rows(run_id, Stream.EVENTS, 0)

    def console(self, run_id: int, last: int = 500) -> list[str]:
        """The last lines of a run's console, in order."""
        return [text for _number, text in self._read(store_lines.tail, run_id, Stream.CONSOLE, last)]

    def lines(self, run_id: int, stream: Stream) -> list[str]:
        """All lines of a run's stream, as stored."""
        return [text for _number, text in self.numbered(run_id, stream)]

    def numbered(self, run_id: int, stream: Stream) -> list[tuple[int, str]]:
        """All lines of a run's stream with their numbers."""
        return self._read(store_lines.page, run_id, stream, 0, 1 << 60)

    def tail(self, run_id: int, stream: Stream, last: int) -> list[tuple[int, str]]:
        """The last lines of a run's stream with their numbers, in order."""
        return self._read(store_lines.tail, run_id, stream, last)

    def line_count(self, run_id: int, stream: Stream) -> int:
        """How many lines a run's stream has."""
        return self._read(store_lines.count, run_id, stream)

    def steps(self, run_id: int, low: int, high: int, limit: int) -> list[str]:
        """Up to `limit` history rows with `low` <= _step < `high`."""
        return self._read(store_lines.steps, run_id, low, high, limit)

    def last_step(self, run_id: int) -> int:
        """The last step in a run's history, -1 where there is none."""
        return self._read(store_lines.last_step, run_id)

    def _rows(self, run_id: int, stream: Stream, after: int) -> list[dict[str, Any]]:
        found = self._read(store_lines.page, run_id, stream, after, 1 << 60)
        return [store_lines.parse(text) for _number, text in found]

    # Who asks

    def user(self, username: str) -> UserRow | None:
        """The user of that name, if they may come in."""
        return self.auth.user_named(username)

    def user_of_key(self, key: str) -> str | None:
        """Whose key this is; nobody's where it is a host's, which signs nobody in."""
        user = self.auth.user_of(key)
        return None if user is None or self.host_keys.is_hosts(key) else user.username

    def ticket_for(self, username: str, ttl_s: float = 600.0) -> str:
        """A short-lived word that signs a user in to the pages. Raises `Missing` for an unknown user."""
        if self.user(username) is None:
            raise Missing(f"username: got {username[:80]!r}, which is not here; make the user first")
        return self.auth.ticket("ticket", username, ttl_s)

    def user_of_ticket(self, ticket: str) -> str | None:
        """For whom a ticket was made, while it lasts."""
        return self.auth.admitted(ticket, "ticket")

    def session_of(self, username: str, ttl_s: float) -> str:
        """A signed cookie for a user."""
        return self.auth.ticket("session", username, ttl_s)

    def user_of_session(self, cookie: str) -> str | None:
        """Whose cookie this is, while it lasts."""
        return self.auth.admitted(cookie, "session")

    # Writes

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
        return self.run_by_id(run_id)

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

    def advice(self, sweep_id: int) -> Advice:
        """What the sweep's search says of it: which run it expects most of, and what it lacks."""
        return self.suggester.advice(sweep_id)

    def reap(self) -> int:
        """End what was not heard of for too long; the number of runs ended."""
        if not self._read(reaper.overdue, self.timeouts, self.started_at, self.clock()):
            return 0
        ended = self.store.write(lambda c: reaper.reap(c, self.timeouts, self.started_at, self.clock()))
        for run in ended:
            self._poke(run)
        return len(ended)

    def _poke(self, run: RunRow) -> None:
        sweep = self.sweep(run.entity, run.project, run.sweep) if run.sweep else None
        if sweep is not None:
            self.suggester.poke(sweep.id)
