"""Random lives of a sweep: agents, trials and the hub come and go, and what was promised holds all the way."""

import json
import random
import shutil
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from prunefleet.infra.hub.runs.runs import RunChange, StreamPost
from prunefleet.infra.hub.runs.sweeps import SweepChange
from prunefleet.infra.hub.store.errors import Conflict, Missing
from prunefleet.infra.hub.store.lines import Stream
from prunefleet.infra.hub.store.rows import Hold, RunRow, RunState, SweepState
from prunefleet.infra.hub.store.states import ENDED_STATES, LIVE_STATES, MAX_RETRIES

from support.hub import SWEEP, Clock, first_user, local_hub, make_agent, make_sweep

CAP = 4
USER = ["enqueue"] * 3 + ["stop a run"] * 2 + ["PAUSED", "RUNNING", "RUNNING", "FINISHED", "CANCELED", "delete"]
HOLDS = ["pause"] * 2 + ["drain", "stop"] + ["resume"] * 3
PROCESS = ["start", "finish", "fail", "preempt", "vanish", "speak"]
MIX = {"heartbeats": 4, "process": 4, "metrics": 2, "user": 1, "hold": 1, "agent": 1}
EARLY = "early_terminate: {type: hyperband, min_iter: 1, strict: true}\n"
BEAT = 5.0  # seconds between heartbeats


class SweepMachine(RuleBasedStateMachine):
    """`processes` are the trials at work, by agent; an agent's process is gone once it has ended or was killed."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.stack = ExitStack()
        self.open()
        self.agents: list[int] = []
        self.processes: dict[int, str] = {}
        self.started: set[str] = set()
        self.finished: dict[str, RunRow] = {}
        self.logged: dict[str, int] = {}
        self.holders: dict[str, int] = {}
        self.deleted = self.moved = False

    def open(self) -> None:
        self.hub = self.stack.enter_context(local_hub(self.folder, self.clock))

    @initialize(own=st.booleans(), method=st.sampled_from(["random", "custom"]), early=st.sampled_from(["", EARLY]))
    def begin(self, own: bool, method: str, early: str) -> None:
        self.own = own
        text = SWEEP.replace("train.py", "prunefleet") if own else SWEEP
        text = text.replace("random", method)
        self.sweep = make_sweep(self.hub, f"{text}run_cap: {CAP}\n{early}")
        self.agents = [make_agent(self.hub, self.sweep) for _ in range(2)]
        self.enqueue()

    @rule(repeated=st.booleans())
    @precondition(lambda self: len(self.agents) < 3 and not self.deleted)
    def agent_comes(self, repeated: bool) -> None:
        """Where its answer is lost the client registers again, and the first registration is never heard again."""
        if repeated:
            make_agent(self.hub, self.sweep)
        self.agents.append(make_agent(self.hub, self.sweep))

    @rule(seed=st.integers(0, 2**32 - 1))
    def a_while_passes(self, seed: int) -> None:
        """A lively mix, because rules drawn one by one repeat themselves: seldom does an agent get to do its work."""
        chance = random.Random(seed)
        for what in chance.choices(list(MIX), list(MIX.values()), k=8):
            if what == "heartbeats" and self.agents:
                self.heartbeats(chance.randrange(6))
            elif what == "process" and self.processes:
                self.process(chance.randrange(3), chance.choice(PROCESS))
            elif what == "metrics":
                self.metrics_arrive(chance.choice([1.0, 2.0]))
            elif what == "user" and not self.deleted:
                self.user(chance.choice(USER), chance.randrange(CAP))
            elif what == "hold" and not self.deleted:
                self.hold(chance.choice(HOLDS), chance.randrange(CAP))
            elif what == "agent" and len(self.agents) < 3 and not self.deleted:
                self.agent_comes(chance.random() < 0.3)
            self.the_cap_holds()
            self.no_run_is_at_work_twice()

    @rule(what=st.sampled_from(USER), at=st.integers(0, CAP - 1))
    @precondition(lambda self: not self.deleted)
    def user(self, what: str, at: int) -> None:
        if what == "enqueue":
            self.enqueue()
        elif what == "stop a run":
            runs = self.hub.listing.sweep_runs(self.sweep.id)
            if runs:
                self.hub.stop_run(runs[at % len(runs)].id)
        elif what == "delete":
            self.hub.delete_sweep(self.sweep.id)
            self.deleted = self.moved = True
            self.finished = {name: replace(run, sweep=None, agent=None) for name, run in self.finished.items()}
        else:
            self.move(what)

    @rule(action=st.sampled_from(HOLDS), at=st.integers(0, CAP - 1))
    @precondition(lambda self: not self.deleted)
    def hold(self, action: str, at: int) -> None:
        """One agent, whether it is still there or not, or their host."""
        known = self.hub.records.sweep_agents(self.sweep.id)
        target = "host" if at == 0 else known[at % len(known)].name
        with suppress(Conflict):
            self.hub.hold_agents(self.sweep.id, action, target)

    def enqueue(self) -> None:
        count, state = len(self.hub.listing.sweep_runs(self.sweep.id)), self.state
        ended = state in (SweepState.FINISHED, SweepState.CANCELED)
        try:
            queued = self.hub.enqueue(self.sweep.id, {"lr": 0.5})
        except Conflict:
            assert ended or count >= CAP
        else:
            assert not ended
            assert queued.unissued

    def move(self, wanted: str) -> None:
        self.moved |= wanted in ("FINISHED", "CANCELED")
        with suppress(Conflict):
            self.hub.revise_sweep(self.sweep.id, SweepChange(state=wanted))

    @rule(value=st.sampled_from([1.0, 2.0]))
    def metrics_arrive(self, value: float) -> None:
        """Every trial that has started logs once more, and the hub looks whom to stop."""
        for name in self.started & set(self.processes.values()):
            at = self.logged[name] = self.logged.get(name, -1) + 1
            line = json.dumps({"loss": value + at % 2, "_step": at})
            self.hub.stream("local", "demo", name, StreamPost({Stream.HISTORY: (at, [line])}))
        for stop in self.hub.early_stop.stop_early():
            assert self.run_named(stop.name).stop_requested_at is not None

    @property
    def state(self) -> SweepState:
        return self.hub.records.sweep_by_id(self.sweep.id).state

    @rule(lost=st.integers(0, 5))
    @precondition(lambda self: self.agents)
    def heartbeats(self, lost: int) -> None:
        """Each agent once; the answer to one of them may be lost."""
        for at, agent in enumerate(list(self.agents)):
            self.beat(agent, answer_is_lost=at == lost)

    def beat(self, agent: int, answer_is_lost: bool = False) -> dict[str, Any] | None:
        self.clock.pass_by(BEAT)
        listed = {self.processes[agent]} if agent in self.processes else set()
        try:
            command = self.hub.heartbeat(agent, listed)
        except Missing:
            assert self.deleted
            if not listed:  # a busy agent lets its run end first
                self.agents.remove(agent)
            return None
        if command is not None and command["type"] in ("run", "resume"):
            anew = self.holders.get(command["run_id"]) != agent
            assert not self.hub.records.agent_by_id(agent).hold, "a held agent was given a run"
            assert self.state is SweepState.RUNNING or not anew, "a sweep at rest began a run"
            self.holders[command["run_id"]] = agent
        if answer_is_lost or command is None:
            return command
        if command["type"] in ("run", "resume"):
            assert agent not in self.processes, "a busy agent was given a run"
            self.processes[agent] = command["run_id"]
            self.started.discard(command["run_id"])
        if command["type"] == "stop":
            held = self.hub.records.agent_by_id(agent).hold
            assert held is Hold.STOP or self.run_named(command["run_id"]).stop_requested_at is not None
            self.processes.pop(agent, None)  # the agent ends the process
        if command["type"] == "exit":
            assert not listed
            self.agents.remove(agent)
        return command

    @rule(at=st.integers(0, 2), how=st.sampled_from(PROCESS))
    @precondition(lambda self: self.processes)
    def process(self, at: int, how: str) -> None:
        agent, name = sorted(self.processes.items())[at % len(self.processes)]
        self.act(agent, name, how)

    def act(self, agent: int, name: str, how: str) -> None:
        if how == "vanish":
            del self.processes[agent]
            return
        if name not in self.started:
            change = RunChange(project="demo", name=name, sweep=self.sweep.name, host="h")
            self.hub.begin_run(first_user(self.hub), change)
            self.started.add(name)
        post = {
            "finish": StreamPost(complete=True),
            "fail": StreamPost(complete=True, exit_code=1),
            "preempt": StreamPost(preempting=True, complete=True, exit_code=1),
        }.get(how, StreamPost())
        self.hub.stream("local", "demo", name, post)
        self.hub.stream("local", "demo", name, post)  # every message may come twice
        if post.complete:
            del self.processes[agent]
        if how == "finish":
            self.finished[name] = self.run_named(name)

    @rule(post=st.sampled_from([StreamPost(), StreamPost(preempting=True), StreamPost(complete=True, exit_code=1)]))
    @precondition(lambda self: self.finished)
    def a_message_comes_late(self, post: StreamPost) -> None:
        """From a run that has ended, as a network may deliver it."""
        name = sorted(self.finished)[0]
        self.hub.stream("local", "demo", name, post)
        self.finished[name] = replace(self.finished[name], heartbeat_at=self.run_named(name).heartbeat_at)

    @rule(at=st.integers(0, 2))
    @precondition(lambda self: self.agents)
    def agent_is_killed(self, at: int) -> None:
        """With its trial, as when a machine loses power."""
        agent = self.agents.pop(at % len(self.agents))
        self.processes.pop(agent, None)

    @rule(seconds=st.sampled_from([1.0, 20.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        """Live processes and agents speak as they do, every few seconds, so that nobody honest falls silent."""
        self.clock.pass_by(seconds)
        for agent in list(self.agents):
            self.beat(agent, answer_is_lost=True)
        for name in self.started & set(self.processes.values()):
            self.hub.stream("local", "demo", name, StreamPost())
        self.hub.reap()

    @rule()
    def hub_restarts(self) -> None:
        self.stack.close()
        self.clock.pass_by(30)
        self.open()

    def run_named(self, name: str) -> RunRow:
        run = self.hub.records.run("local", "demo", name)
        assert run is not None
        return run

    @invariant()
    def the_cap_holds(self) -> None:
        if hasattr(self, "sweep"):
            assert len(self.hub.listing.sweep_runs(self.sweep.id)) <= CAP

    @invariant()
    def no_run_is_at_work_twice(self) -> None:
        assert len(set(self.processes.values())) == len(self.processes)

    @invariant()
    def finished_runs_stay(self) -> None:
        for name, before in self.finished.items():
            assert self.run_named(name) == before

    def teardown(self) -> None:
        try:
            if hasattr(self, "sweep"):
                self.drain()
        finally:
            self.stack.close()
            shutil.rmtree(self.folder)

    def drain(self) -> None:
        """From wherever it stands, honest agents bring what is left to its end."""
        self.clock.pass_by(200)
        self.hub.reap()
        if not self.deleted:
            self.hub.hold_agents(self.sweep.id, "resume", "host")
            if self.state is SweepState.PAUSED:
                self.move("RUNNING")
        for _ in range(200):
            if self.rests() and not self.processes:
                break
            self.work()
        assert self.rests(), "the sweep never ends"
        self.clock.pass_by(400)
        self.hub.reap()
        self.judge(self.hub.records.runs("local", "demo"))

    def rests(self) -> bool:
        return self.deleted or self.state in (SweepState.FINISHED, SweepState.CANCELED)

    def work(self) -> None:
        if not self.rests():
            self.enqueue()
            if not self.agents:
                self.agent_comes(repeated=False)
        for agent in list(self.agents):
            self.beat(agent)
            if agent in self.processes:
                self.act(agent, self.processes[agent], "finish")

    def judge(self, runs: list[RunRow]) -> None:
        assert not [run for run in runs if run.state in LIVE_STATES], "something lives for ever"
        assert all(run.retries <= MAX_RETRIES or not self.own for run in runs)
        if not self.moved:
            assert len(runs) == CAP
            assert all(run.state in ENDED_STATES for run in runs)
            assert not self.own or RunState.CRASHED not in {run.state for run in runs}


SweepMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20)
test_sweeps_live_random_lives = SweepMachine.TestCase
