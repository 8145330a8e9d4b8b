"""Keeps `wandb agent` processes running while their sweep does, with a back-off for one that keeps ending early."""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prunefleet.infra.fleet.supervision.breaker import Allowed, Breaker
from prunefleet.infra.fleet.supervision.pauses import Pauses
from prunefleet.infra.fleet.supervision.process import Child, Impatience, is_deaf, keep_short, runs_of, stop_all
from prunefleet.objective.host_outcomes import read
from prunefleet.objective.patience import be_patient
from prunefleet.objective.processes import python_module

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
HEALTHY_AFTER = 120.0  # seconds after which an end counts as the first one again
LOOK_S = 5.0
DEAF_S = 10.0  # in which the client may start another process in the place of the one it speaks through
STOP_PATIENCE = 30.0  # a trial needs up to 15 s to hand its last rows to the server


def agent_command(sweep: str, most: int | None = None) -> list[str]:
    """The unmodified client's agent, for `most` runs; signals reach the trial, which then hands its run back."""
    count = [] if most is None else ["--count", str(most)]
    return python_module("wandb", "agent", "--forward-signals", "--term-timeout", "25", *count, sweep)


class Agent:
    """One place for a `wandb agent`: at most one process at a time, started again after a pause that grows."""

    def __init__(self, number: int, sweep: str, env: Mapping[str, str], folder: Path, cwd: Path) -> None:
        self.name = f"agent-{number}"
        self._sweep, self._folder, self._cwd = sweep, folder, cwd
        # One folder per agent: two agents in one would mix their runs' local files.
        self._env = {**env, "WANDB_DIR": str(folder / self.name)}
        be_patient(self._env)
        self._pause, self._not_before = FIRST_PAUSE, 0.0
        self.child: Child | None = None
        self.earlier: list[Child] = []
        self.starts = 0
        self.sent_home = False
        """Whether the last process ended well before long: the server told it that there is nothing to do."""
        self._drained: Child | None = None
        self._awaited: set[int] | None = None
        self._deaf_since: float | None = None
        self._looked = 0.0

    def tend(self, now: float, allowed: Allowed = Allowed.ALL) -> None:
        """Start the process if there is none, its pause is over and it may run; called often, returns at once."""
        log = self._folder / f"{self.name}.log"
        keep_short(log)
        if self.child is not None and self.child.ended() is not None:
            self._note_end(now)
        self._hear(now)
        if self.child is None and now >= self._not_before and allowed is not Allowed.NONE:
            Path(self._env["WANDB_DIR"]).mkdir(parents=True, exist_ok=True)
            command = agent_command(self._sweep, 1 if allowed is Allowed.ONE else None)
            self.child = Child(self.name, command, self._env, log, self._cwd)
            self.starts += 1

    def drain(self) -> None:
        """Ask the process to end, once: its trial hands its run back. Returns at once."""
        if self.child is not None and self.child is not self._drained and self.child.ended() is None:
            self._drained = self.child
            self.child.signal(signal.SIGTERM)

    def leave(self) -> None:
        """Let the runs under way come to their end, then ask the process to end; called often, returns at once.

        A run that begins before the process hears that is handed back.
        """
        if self.child is None or self.child.ended() is not None:
            return
        runs = runs_of(self.child.pid)
        self._awaited = runs if self._awaited is None else self._awaited & runs
        if not self._awaited:
            self.drain()

    def stay(self) -> None:
        """Go on after all, where the process was not asked to end yet."""
        self._awaited = None

    def _hear(self, now: float) -> None:
        """End a process that its server cannot hear any more, once its run has ended; another takes its place."""
        if now - self._looked > LOOK_S:
            self._looked = now
            deaf = self.child is not None and is_deaf(self.child.pid)
            self._deaf_since = (self._deaf_since or now) if deaf else None
        if self._deaf_since is not None and now - self._deaf_since > DEAF_S:
            self.leave()

    def _note_end(self, now: float) -> None:
        assert self.child is not None
        healthy = now - self.child.started > HEALTHY_AFTER
        if healthy:
            self._pause = FIRST_PAUSE
        self.sent_home = not healthy and self.child.ended() == 0 and self.child is not self._drained
        self._not_before, self._pause = now + self._pause, min(2 * self._pause, LONGEST_PAUSE)
        # An agent that was killed leaves its trial running: that one may end, unless all is stopped before.
        self.earlier = [child for child in (*self.earlier, self.child) if child.members()]
        self.child = self._awaited = self._deaf_since = None


class Supervisor:
    """The agents of this machine; where `outcomes` names the file of how their trials end, an ill host pauses.

    So does one with a full disk or a hot processor, as `pauses` finds it.
    """

    def __init__(
        self,
        agents: Sequence[Agent],
        outcomes: Path | None = None,
        say: Callable[[str], None] = lambda text: None,
        pauses: Pauses | None = None,
    ) -> None:
        self.agents, self.breaker, self.pauses = agents, Breaker(), pauses or Pauses(())
        self._outcomes, self._say = outcomes, say
        self._read = outcomes.stat().st_size if outcomes and outcomes.exists() else 0

    def tend(self) -> None:
        """Restart what ended too early, as far as the host is well; called often."""
        now = time.monotonic()
        self._learn(now)
        if told := self.pauses.look(now):
            self._say(told)
        allowed = Allowed.NONE if self.pauses.reasons else self.breaker.allowed(now)
        for place, agent in enumerate(self.agents):
            if self.pauses.reasons:
                agent.leave()
            else:
                agent.stay()
            agent.tend(now, Allowed.NONE if place and allowed is Allowed.ONE else allowed)

    def idle(self) -> bool:
        """Whether the server had nothing to do for any agent when it was last asked."""
        return not self.pauses.reasons and all(agent.sent_home for agent in self.agents)

    def _learn(self, now: float) -> None:
        if self._outcomes is None:
            return
        found, self._read = read(self._outcomes, self._read)
        if told := self.breaker.learn(found, now):
            self._say(told)
            if self.breaker.allowed(now) is Allowed.NONE:
                for agent in self.agents:
                    agent.drain()

    def paused(self) -> str:
        """What to add to a line about the trials: why none begins here, in a few words."""
        why = " and ".join({"disk": "its disk is full", "heat": "it is too hot"}[each] for each in self.pauses.reasons)
        return f"; this host pauses: {why}" if why else ""

    def busy(self) -> bool:
        """Whether an agent process still runs."""
        return any(agent.child is not None and agent.child.ended() is None for agent in self.agents)

    def stop(self, impatient: Impatience | None = None, patience: float = STOP_PATIENCE) -> None:
        """End all agents and their trials, in tiers; says which of them did not end at the first."""
        present = [agent.child for agent in self.agents if agent.child is not None]
        earlier = [child for agent in self.agents for child in agent.earlier]
        stop_all([*present, *earlier], patience, impatient, self._say)
