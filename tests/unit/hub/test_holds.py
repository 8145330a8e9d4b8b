"""What people ask of agents: pause, drain, stop, resume; of one, of its place, and of a host."""

import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.holds import ACTIONS
from prunefleet.infra.hub.runs.runs import RunChange, StreamPost
from prunefleet.infra.hub.store.errors import Conflict, Invalid, Missing
from prunefleet.infra.hub.store.rows import Hold, RunRow, RunState, SweepRow, SweepState
from prunefleet.infra.hub.store.states import MAX_RETRIES

from support.hub import SWEEP, Clock, first_user, local_hub, make_agent, make_sweep

CAP = 12
HOSTS = ("host", "other")
MOVES = ["beat"] * 6 + ["end"] * 2 + ["come", "pause", "drain", "stop", "resume", "resume"]
OWN_SWEEP = SWEEP.replace("train.py", "prunefleet")
EXIT = {"type": "exit"}


@pytest.fixture
def sweep(hub: Hub) -> SweepRow:
    return make_sweep(hub, OWN_SWEEP)


def come(hub: Hub, sweep: SweepRow, clock: Clock, host: str = "host") -> int:
    """A new agent, a moment after whatever was before."""
    clock.pass_by(1)
    return make_agent(hub, sweep, host)


def ask(hub: Hub, sweep: SweepRow, action: str, agent: int) -> None:
    hub.hold_agents(sweep.id, action, hub.records.agent_by_id(agent).name)


def begin(hub: Hub, sweep: SweepRow, agent: int) -> str:
    """The agent is given a run, and starts it."""
    command = hub.heartbeat(agent, set())
    assert command is not None and command["type"] in ("run", "resume")
    name = str(command["run_id"])
    hub.begin_run(first_user(hub), RunChange(project=sweep.project, name=name, sweep=sweep.name, host="h"))
    assert hub.heartbeat(agent, {name}) is None
    return name


def run(hub: Hub, sweep: SweepRow, name: str) -> RunRow:
    found = hub.records.run(sweep.entity, sweep.project, name)
    assert found is not None
    return found


def hand_back(hub: Hub, sweep: SweepRow, name: str) -> None:
    """What a trial of ours does when it is told to end."""
    hub.stream(sweep.entity, sweep.project, name, StreamPost(preempting=True, complete=True, exit_code=1))


def test_a_paused_agent_ends_its_run_and_gets_none_until_it_is_resumed(hub: Hub, clock: Clock, sweep: SweepRow) -> None:
    """The run under way goes on; what is queued waits; the first heartbeat after `resume` brings a run."""
    agent = come(hub, sweep, clock)
    name = begin(hub, sweep, agent)
    ask(hub, sweep, "pause", agent)
    assert hub.heartbeat(agent, {name}) is None
    hub.stream(sweep.entity, sweep.project, name, StreamPost(complete=True))
    hub.enqueue(sweep.id, {"lr": 0.5})
    assert hub.heartbeat(agent, set()) is None
    ask(hub, sweep, "resume", agent)
    command = hub.heartbeat(agent, set())
    assert command is not None and command["args"] == {"lr": {"value": 0.5}}


def test_a_drained_agent_leaves_after_its_run(hub: Hub, clock: Clock, sweep: SweepRow) -> None:
    """It is told nothing while its run goes on, then to exit, again if that answer was lost."""
    agent = come(hub, sweep, clock)
    name = begin(hub, sweep, agent)
    ask(hub, sweep, "drain", agent)
    assert hub.heartbeat(agent, {name}) is None
    hub.stream(sweep.entity, sweep.project, name, StreamPost(complete=True))
    assert hub.heartbeat(agent, set()) == hub.heartbeat(agent, set()) == EXIT
    assert run(hub, sweep, name).state is RunState.FINISHED
    assert hub.records.agent_by_id(agent).left


def test_an_agent_that_did_not_hear_that_it_may_leave_can_be_resumed(hub: Hub, clock: Clock, sweep: SweepRow) -> None:
    """It is told to exit, the answer is lost, it is resumed: it works on, and is not told as having left."""
    agent = come(hub, sweep, clock)
    ask(hub, sweep, "drain", agent)
    assert hub.heartbeat(agent, set()) == EXIT
    ask(hub, sweep, "resume", agent)
    begin(hub, sweep, agent)
    assert not hub.records.agent_by_id(agent).left


def test_a_stopped_agent_hands_its_run_back_and_leaves(hub: Hub, clock: Clock, sweep: SweepRow) -> None:
    """Its run is told to end, at every heartbeat until it does, then goes to another agent under its id."""
    agent, other = come(hub, sweep, clock), come(hub, sweep, clock, "elsewhere")
    name = begin(hub, sweep, agent)
    ask(hub, sweep, "stop", agent)
    told = {"type": "stop", "run_id": name}
    assert hub.heartbeat(agent, {name}) == hub.heartbeat(agent, {name}) == told
    hand_back(hub, sweep, name)
    assert hub.heartbeat(agent, {name}) == told  # the process may linger
    assert hub.heartbeat(agent, set()) == EXIT
    command = hub.heartbeat(other, set())
    assert command is not None and (command["type"], command["run_id"]) == ("resume", name)


def test_a_run_that_is_killed_for_its_agents_sake_is_queued_too(hub: Hub, clock: Clock, sweep: SweepRow) -> None:
    """One that does not hand itself back is killed by the client in the end; in a sweep of ours it is tried again."""
    agent = come(hub, sweep, clock)
    name = begin(hub, sweep, agent)
    ask(hub, sweep, "stop", agent)
    hub.heartbeat(agent, {name})
    assert hub.heartbeat(agent, set()) == EXIT
    assert run(hub, sweep, name).state is RunState.PREEMPTED


def test_stops_of_agents_are_no_failures_of_the_run(hub: Hub, clock: Clock, sweep: SweepRow) -> None:
    """However many agents are stopped under a run, it is given out again, and its retries are those of failures."""
    name = begin(hub, sweep, come(hub, sweep, clock, "first"))
    hand_back(hub, sweep, name)  # a failure
    for number in range(MAX_RETRIES + 2):
        agent = come(hub, sweep, clock, f"host-{number}")
        assert begin(hub, sweep, agent) == name
        ask(hub, sweep, "stop", agent)
        hub.heartbeat(agent, {name})
        hand_back(hub, sweep, name)
        assert hub.heartbeat(agent, set()) == EXIT
    assert begin(hub, sweep, come(hub, sweep, clock, "last")) == name
    assert run(hub, sweep, name).retries == 1


def test_the_place_of_an_agent_that_left_stays_held(hub: Hub, clock: Clock, sweep: SweepRow) -> None:
    """What a supervisor starts in its stead waits, and only that; resuming either name gives the place free."""
    for named in (0, 1):
        agent, beside = come(hub, sweep, clock), come(hub, sweep, clock)
        clock.pass_by(5)
        hub.heartbeat(beside, {"busy"})
        ask(hub, sweep, "drain", agent)
        assert hub.heartbeat(agent, set()) == EXIT
        heir, further, elsewhere = (come(hub, sweep, clock, host) for host in ("host", "host", "elsewhere"))
        assert hub.heartbeat(heir, set()) is None
        for free in (further, elsewhere, beside):
            assert hub.heartbeat(free, set()) is not None
        ask(hub, sweep, "resume", (agent, heir)[named])
        assert hub.heartbeat(heir, set()) is not None


def test_the_place_of_a_paused_agent_that_fell_silent_stays_held(hub: Hub, clock: Clock, sweep: SweepRow) -> None:
    """After a reboot nobody said good-bye: whoever comes waits until it is known whether it is a further one."""
    agent = come(hub, sweep, clock)
    ask(hub, sweep, "pause", agent)
    further = come(hub, sweep, clock)
    assert hub.heartbeat(further, set()) is None
    clock.pass_by(5)
    hub.heartbeat(agent, set())  # it is still there
    assert hub.heartbeat(further, set()) is not None
    heir = come(hub, sweep, clock)
    for _ in range(13):
        assert hub.heartbeat(heir, set()) is None
        clock.pass_by(5)
    assert hub.records.agent_by_id(heir).hold is Hold.PAUSE
    assert hub.records.agent_by_id(agent).followed
    third = come(hub, sweep, clock)
    clock.pass_by(1)
    hub.heartbeat(heir, set())
    assert hub.heartbeat(third, set()) is not None


def test_a_hold_of_a_host_holds_for_all_that_joins_from_there(hub: Hub, clock: Clock, sweep: SweepRow) -> None:
    """Drained, its agents leave and newcomers wait, also on a hub started anew; `resume` ends all of it."""
    agents, other = [come(hub, sweep, clock) for _ in range(2)], come(hub, sweep, clock, "elsewhere")
    assert len(hub.hold_agents(sweep.id, "drain", "host")) == 2
    assert [hub.heartbeat(agent, set()) for agent in agents] == [EXIT] * 2
    comers = [come(hub, sweep, clock) for _ in range(3)]
    assert [hub.heartbeat(agent, set()) for agent in comers] == [None] * 3
    assert hub.heartbeat(other, set()) is not None
    assert hub.records.held_hosts(sweep.id) == ["host"]
    ask(hub, sweep, "resume", comers[0])  # one of them
    assert [hub.heartbeat(agent, set()) is None for agent in comers] == [False, True, True]
    hub.hold_agents(sweep.id, "resume", "host")
    assert hub.records.held_hosts(sweep.id) == []
    assert None not in [hub.heartbeat(agent, set()) for agent in (*comers[1:], come(hub, sweep, clock))]


def test_another_sweep_of_the_host_goes_on(hub: Hub, clock: Clock, sweep: SweepRow) -> None:
    """A hold belongs to a sweep."""
    come(hub, sweep, clock)
    hub.hold_agents(sweep.id, "pause", "host")
    other = make_sweep(hub, OWN_SWEEP)
    assert hub.heartbeat(come(hub, other, clock), set()) is not None


def test_what_was_given_and_never_heard_of_goes_back(hub: Hub, clock: Clock, sweep: SweepRow) -> None:
    """A held agent whose answer was lost is not told again; the run waits for another agent."""
    agent, other = come(hub, sweep, clock), come(hub, sweep, clock, "elsewhere")
    command = hub.heartbeat(agent, set())
    assert command is not None
    ask(hub, sweep, "pause", agent)
    assert hub.heartbeat(agent, set()) is None
    clock.pass_by(5)
    assert hub.heartbeat(agent, set()) is None
    again = hub.heartbeat(other, set())
    assert again is not None and again["run_id"] == command["run_id"]


def test_a_paused_agent_still_ends_a_full_sweep(hub: Hub, clock: Clock) -> None:
    """Where all runs are done nobody needs to be resumed for the sweep to end."""
    sweep = make_sweep(hub, OWN_SWEEP + "run_cap: 1\n")
    agent = come(hub, sweep, clock)
    name = begin(hub, sweep, agent)
    ask(hub, sweep, "pause", agent)
    hub.stream(sweep.entity, sweep.project, name, StreamPost(complete=True))
    assert hub.heartbeat(agent, set()) == EXIT
    assert hub.records.sweep_by_id(sweep.id).state is SweepState.FINISHED


def test_a_failed_run_is_not_kept_for_a_held_host(hub: Hub, clock: Clock, sweep: SweepRow) -> None:
    """The host that a run failed on takes it again where all others are held: else it would wait for nobody."""
    agent, other = come(hub, sweep, clock, "h"), come(hub, sweep, clock, "elsewhere")
    name = begin(hub, sweep, agent)
    hub.stream(sweep.entity, sweep.project, name, StreamPost(summary={"failure_kind": "disk"}))
    hand_back(hub, sweep, name)
    ask(hub, sweep, "pause", other)
    command = hub.heartbeat(agent, set())
    assert command is not None and command["run_id"] == name


def test_a_wrong_name_or_action_is_told_with_what_there_is(hub: Hub, clock: Clock, sweep: SweepRow) -> None:
    """One line names the agents and hosts that are there; who has left cannot be asked anything but to resume."""
    agent = come(hub, sweep, clock)
    name = hub.records.agent_by_id(agent).name
    with pytest.raises(Missing, match=f"agent: got 'nobody'; there is {name} on host$"):
        hub.hold_agents(sweep.id, "pause", "nobody")
    with pytest.raises(Invalid, match="action: got 'kill'; use one of pause, resume, drain, stop"):
        hub.hold_agents(sweep.id, "kill", name)
    ask(hub, sweep, "drain", agent)
    assert hub.heartbeat(agent, set()) == EXIT
    with pytest.raises(Conflict, match=f"agent: {name} has left the sweep; name one that is there, or its host host"):
        ask(hub, sweep, "pause", agent)


class Play:
    """Honest agents on two hosts, and somebody who asks them for this and that."""

    def __init__(self, hub: Hub, clock: Clock) -> None:
        self.hub, self.clock = hub, clock
        self.sweep = make_sweep(hub, f"{OWN_SWEEP}run_cap: {CAP}\n")
        self.agents = [come(hub, self.sweep, clock, host) for host in HOSTS]
        self.at_work: dict[int, str] = {}

    def move(self, what: str, at: int) -> None:
        """One thing happens to one agent, or for the last number to all of a host."""
        if what == "come":
            self.agents += [come(self.hub, self.sweep, self.clock, HOSTS[at % 2])] if len(self.agents) < 4 else []
        elif what == "beat" and self.agents:
            self.beat(self.agents[at % len(self.agents)])
        elif what == "end" and self.at_work:
            self.end(sorted(self.at_work)[at % len(self.at_work)])
        elif what in ACTIONS:
            known = self.hub.records.sweep_agents(self.sweep.id)
            with suppress(Conflict):  # it has left
                target = HOSTS[at % 2] if at > 5 else known[at % len(known)].name
                self.hub.hold_agents(self.sweep.id, what, target)

    def beat(self, agent: int) -> None:
        self.clock.pass_by(5)
        run = self.at_work.get(agent)
        command = self.hub.heartbeat(agent, {run} if run else set())
        held = self.hub.records.agent_by_id(agent).hold
        if command is None:
            return
        if command["type"] == "stop":
            assert held is Hold.STOP and command["run_id"] == run
            hand_back(self.hub, self.sweep, self.at_work.pop(agent))
        elif command == EXIT:
            assert run is None
            self.agents.remove(agent)
        else:
            assert not held, "a held agent was given a run"
            assert command["run_id"] not in self.at_work.values(), "a run was given twice"
            assert run is None, "a busy agent was given a run"
            name = self.at_work[agent] = command["run_id"]
            self.hub.begin_run(first_user(self.hub), RunChange(project="demo", name=name, sweep=self.sweep.name))
            self.hub.stream("local", "demo", name, StreamPost())

    def end(self, agent: int) -> None:
        self.hub.stream("local", "demo", self.at_work.pop(agent), StreamPost(complete=True))

    def go_on_to_the_end(self) -> None:
        for host in HOSTS:
            self.hub.hold_agents(self.sweep.id, "resume", host)
        for _ in range(20 * CAP):
            if not self.agents and not self.at_work:
                self.agents.append(come(self.hub, self.sweep, self.clock))
            for agent in list(self.agents):
                self.beat(agent)
            for agent in list(self.at_work):
                self.end(agent)
            if self.hub.records.sweep_by_id(self.sweep.id).state is SweepState.FINISHED:
                return
        raise AssertionError("the sweep never ends")


@given(moves=st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 7)), min_size=10, max_size=60))
@settings(max_examples=25, deadline=None)
def test_whatever_is_asked_no_run_is_lost_or_given_to_who_is_held(moves: list[tuple[str, int]]) -> None:
    """In any order of wishes and heartbeats no held agent is given a run, and in the end each has finished, once."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, local_hub(Path(folder), clock) as hub:
        play = Play(hub, clock)
        for what, at in moves:
            play.move(what, at)
        play.go_on_to_the_end()
        ended = hub.listing.sweep_runs(play.sweep.id)
        assert [(run.state, run.retries) for run in ended] == [(RunState.FINISHED, 0)] * CAP
