"""Random lives of a sweep: agents, trials and the hub come and go, and what was promised holds all the way."""

import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support_hub import SWEEP, Clock, first_user, local_hub, make_agent, make_sweep

from infra.hub.rows import RunRow, RunState, SweepState
from infra.hub.runs import RunChange, StreamPost
from infra.hub.states import ENDED_STATES, MAX_RETRIES

CAP = 4
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

    def open(self) -> None:
        self.hub = self.stack.enter_context(local_hub(self.folder, self.clock))

    @initialize(own=st.booleans())
    def begin(self, own: bool) -> None:
        self.own = own
        text = SWEEP.replace("train.py", "prunefleet") if own else SWEEP
        self.sweep = make_sweep(self.hub, f"{text}run_cap: {CAP}\n")

    @rule()
    @precondition(lambda self: len(self.agents) < 3)
    def agent_comes(self) -> None:
        self.agents.append(make_agent(self.hub, self.sweep))

    @rule(at=st.integers(0, 2), answer_is_lost=st.booleans())
    @precondition(lambda self: self.agents)
    def heartbeat(self, at: int, answer_is_lost: bool) -> None:
        self.beat(self.agents[at % len(self.agents)], answer_is_lost)

    def beat(self, agent: int, answer_is_lost: bool = False) -> dict[str, Any] | None:
        self.clock.pass_by(BEAT)
        listed = {self.processes[agent]} if agent in self.processes else set()
        command = self.hub.heartbeat(agent, listed)
        if answer_is_lost or command is None:
            return command
        if command["type"] in ("run", "resume"):
            assert agent not in self.processes, "a busy agent was given a run"
            self.processes[agent] = command["run_id"]
            self.started.discard(command["run_id"])
        if command["type"] == "exit":
            assert not listed
            self.agents.remove(agent)
        return command

    @rule(at=st.integers(0, 2), how=st.sampled_from(["start", "finish", "fail", "preempt", "vanish", "speak"]))
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
        self.hub.reap()

    @rule()
    def hub_restarts(self) -> None:
        self.stack.close()
        self.clock.pass_by(30)
        self.open()

    def run_named(self, name: str) -> RunRow:
        run = self.hub.run("local", "demo", name)
        assert run is not None
        return run

    @invariant()
    def the_cap_holds(self) -> None:
        if hasattr(self, "sweep"):
            assert len(self.hub.sweep_runs(self.sweep.id)) <= CAP

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
        """From wherever it stands, honest agents bring the sweep to its end."""
        self.clock.pass_by(200)
        self.hub.reap()
        for _ in range(200):
            if self.hub.sweep_by_id(self.sweep.id).state is SweepState.FINISHED:
                break
            if not self.agents:
                self.agent_comes()
            for agent in list(self.agents):
                self.beat(agent)
                if agent in self.processes:
                    self.act(agent, self.processes[agent], "finish")
        runs = self.hub.sweep_runs(self.sweep.id)
        assert len(runs) == CAP
        assert all(run.state in ENDED_STATES for run in runs)
        assert all(run.retries <= MAX_RETRIES or not self.own for run in runs)
        if self.own:
            assert RunState.CRASHED not in {run.state for run in runs}


SweepMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=30)
test_sweeps_live_random_lives = SweepMachine.TestCase
