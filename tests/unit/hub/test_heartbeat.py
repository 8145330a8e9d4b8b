"""What agents are told, heartbeat by heartbeat: claims, retries, losses, stops, and the end of a sweep."""

from typing import Any

import pytest

from prunefleet.infra.controller.contract import Exhausted
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.runs import RunChange, StreamPost
from prunefleet.infra.hub.runs.sweeps import SweepChange
from prunefleet.infra.hub.store.errors import Conflict, Missing
from prunefleet.infra.hub.store.rows import RunRow, RunState, SweepRow, SweepState

from support.hub import SWEEP, Clock, Suggestions, first_user, make_agent, make_sweep

OWN_SWEEP = SWEEP.replace("train.py", "prunefleet")


def start(hub: Hub, sweep: SweepRow, name: str) -> None:
    change = RunChange(project=sweep.project, name=name, sweep=sweep.name, host="h", program="train.py")
    hub.begin_run(first_user(hub), change)


def end(hub: Hub, sweep: SweepRow, name: str, exit_code: int = 0, preempting: bool = False) -> RunRow:
    if preempting:
        hub.stream(sweep.entity, sweep.project, name, StreamPost(preempting=True))
    return hub.stream(sweep.entity, sweep.project, name, StreamPost(complete=True, exit_code=exit_code))


def claim(hub: Hub, agent: int) -> dict[str, Any]:
    command = hub.heartbeat(agent, set())
    assert command is not None
    assert command["type"] in ("run", "resume")
    return command


def state(hub: Hub, sweep: SweepRow, name: str) -> RunState:
    run = hub.records.run(sweep.entity, sweep.project, name)
    assert run is not None
    return run.state


def test_first_agent_starts_the_sweep(hub: Hub) -> None:
    """A sweep waits in PENDING until its first agent registers."""
    sweep = make_sweep(hub)
    assert sweep.state is SweepState.PENDING
    make_agent(hub, sweep)
    assert hub.records.sweep_by_id(sweep.id).state is SweepState.RUNNING


def test_a_claim_carries_what_the_client_needs(hub: Hub) -> None:
    """A run command holds the run's id, wrapped arguments and the program, and the run is there as pending."""
    sweep = make_sweep(hub)
    command = claim(hub, make_agent(hub, sweep))
    assert command["type"] == "run"
    assert command["args"] == {"lr": {"value": 1}}
    assert command["program"] == "train.py"
    run = hub.records.run(sweep.entity, sweep.project, command["run_id"])
    assert run is not None
    assert (run.state, run.config, run.why) == (RunState.PENDING, {"lr": 1}, {"reason": "number 1"})


def test_a_repeated_claim_returns_the_same_run(hub: Hub, clock: Clock) -> None:
    """An agent whose answer was lost is given the same run again, soon after as well as later."""
    agent = make_agent(hub, make_sweep(hub))
    first = claim(hub, agent)
    assert claim(hub, agent)["run_id"] == first["run_id"]
    clock.pass_by(60)
    assert claim(hub, agent)["run_id"] == first["run_id"]


def test_a_busy_agent_is_told_nothing(hub: Hub) -> None:
    """The server alone limits concurrency: no second run while one is listed."""
    agent = make_agent(hub, make_sweep(hub))
    name = claim(hub, agent)["run_id"]
    assert hub.heartbeat(agent, {name}) is None


def test_two_agents_never_hold_one_run(hub: Hub) -> None:
    """Each agent is given a run of its own."""
    sweep = make_sweep(hub)
    given = [claim(hub, make_agent(hub, sweep))["run_id"] for _ in range(4)]
    assert len(set(given)) == 4


def test_no_suggestion_yet_means_wait(hub: Hub) -> None:
    """Where the controller still thinks, the heartbeat answers no command instead of waiting."""
    suggester = hub.suggester
    assert isinstance(suggester, Suggestions)
    suggester.answer = lambda: None
    assert hub.heartbeat(make_agent(hub, make_sweep(hub)), set()) is None


def test_never_started_three_times_is_failed(hub: Hub, clock: Clock) -> None:
    """A run whose process dies before it starts is given out again twice, then failed; it is never lost or doubled."""
    sweep = make_sweep(hub)
    agent = make_agent(hub, sweep)
    name = claim(hub, agent)["run_id"]
    for _ in range(2):
        clock.pass_by(10)
        assert claim(hub, agent)["run_id"] == name
    clock.pass_by(10)
    assert claim(hub, agent)["run_id"] != name
    assert state(hub, sweep, name) is RunState.FAILED


def test_a_process_that_vanished_is_crashed_in_a_generic_sweep(hub: Hub, clock: Clock) -> None:
    """One heartbeat that no longer lists a running run is enough: the client has reaped the process."""
    sweep = make_sweep(hub)
    agent = make_agent(hub, sweep)
    name = claim(hub, agent)["run_id"]
    start(hub, sweep, name)
    clock.pass_by(10)
    assert claim(hub, agent)["run_id"] != name
    assert state(hub, sweep, name) is RunState.CRASHED


def test_a_killed_trial_is_queued_again_at_most_twice(hub: Hub, clock: Clock) -> None:
    """A trial of ours that vanishes is its host's failure: same run id twice more, then failed as kept_failing."""
    sweep = make_sweep(hub, OWN_SWEEP)
    agent = make_agent(hub, sweep)
    name = claim(hub, agent)["run_id"]
    kinds = []
    for _ in range(2):
        start(hub, sweep, name)
        clock.pass_by(10)
        command = claim(hub, agent)
        assert command["run_id"] == name
        kinds.append(command["type"])
    start(hub, sweep, name)
    clock.pass_by(10)
    assert claim(hub, agent)["run_id"] != name
    run = hub.records.run(sweep.entity, sweep.project, name)
    assert run is not None
    assert (run.state, run.retries, run.summary["outcome"]) == (RunState.FAILED, 2, "kept_failing")
    assert kinds == ["resume", "resume"]
    assert len(hub.listing.sweep_runs(sweep.id)) == 2


def test_a_preempted_run_goes_to_the_next_idle_agent(hub: Hub) -> None:
    """A run that marked itself preempting and failed is resumed by another agent before anything new."""
    sweep = make_sweep(hub)
    first, second = make_agent(hub, sweep), make_agent(hub, sweep)
    name = claim(hub, first)["run_id"]
    start(hub, sweep, name)
    assert end(hub, sweep, name, exit_code=1, preempting=True).state is RunState.PREEMPTED
    command = claim(hub, second)
    assert (command["type"], command["run_id"]) == ("resume", name)
    assert claim(hub, first)["run_id"] != name


def failed_on(hub: Hub, sweep: SweepRow, agent: int, host: str, kind: str | None = "device") -> str:
    """A run of that agent, which its trial gave back for a failure of its host; its name."""
    name = str(claim(hub, agent)["run_id"])
    hub.begin_run(first_user(hub), RunChange(project=sweep.project, name=name, sweep=sweep.name, host=host))
    summary = {"failure_kind": kind} if kind else {}
    hub.stream(sweep.entity, sweep.project, name, StreamPost(summary=summary, preempting=True))
    assert end(hub, sweep, name, exit_code=1).state is RunState.PREEMPTED
    return name


def test_a_run_that_failed_on_a_host_is_left_to_others(hub: Hub, clock: Clock) -> None:
    """The host that failed gets something new instead; another takes the run, or after a minute the host itself."""
    sweep = make_sweep(hub)
    ill, well = make_agent(hub, sweep, "ill"), make_agent(hub, sweep, "well")
    name = failed_on(hub, sweep, ill, "ill")
    fresh = claim(hub, ill)["run_id"]
    assert fresh != name
    start(hub, sweep, fresh)
    end(hub, sweep, fresh)
    clock.pass_by(30)
    hub.heartbeat(well, {"busy"})
    assert claim(hub, ill)["run_id"] != name
    assert claim(hub, well)["run_id"] == name


def test_a_host_is_given_its_own_failure_again_where_nobody_else_takes_it(hub: Hub, clock: Clock) -> None:
    """At once where it is the only one, or the others are silent; after a minute where they are at work."""
    sweep = make_sweep(hub)
    alone = make_agent(hub, sweep, "ill")
    name = failed_on(hub, sweep, alone, "ill")
    assert claim(hub, alone)["run_id"] == name
    busy = make_agent(hub, sweep, "well")
    hub.begin_run(first_user(hub), RunChange(project=sweep.project, name=name, sweep=sweep.name, host="ill"))
    hub.stream(sweep.entity, sweep.project, name, StreamPost(summary={"failure_kind": "device"}, preempting=True))
    end(hub, sweep, name, exit_code=1)
    for _ in range(7):
        clock.pass_by(10)
        hub.heartbeat(busy, {"busy"})
    assert claim(hub, alone)["run_id"] == name


@pytest.mark.parametrize("kind", [None, "interrupted"])
def test_a_run_that_was_interrupted_goes_on_where_it_was(hub: Hub, kind: str | None) -> None:
    """A stopped trial's finished stages are on its host; one that says nothing is anybody's."""
    sweep = make_sweep(hub)
    agent, _ = make_agent(hub, sweep, "first"), make_agent(hub, sweep, "second")
    name = failed_on(hub, sweep, agent, "first", kind)
    assert claim(hub, agent)["run_id"] == name


def test_a_resumed_run_is_given_the_arguments_of_the_sweep(hub: Hub) -> None:
    """What a trial added to its configuration does not come back as an argument."""
    sweep = make_sweep(hub)
    agent = make_agent(hub, sweep)
    name = claim(hub, agent)["run_id"]
    change = RunChange(project="demo", name=name, host="h", config={"lr": {"value": 1}, "device": {"value": "cpu"}})
    hub.begin_run(first_user(hub), change)
    end(hub, sweep, name, exit_code=1, preempting=True)
    assert claim(hub, agent)["args"] == {"lr": {"value": 1}}


def test_the_cap_counts_a_retried_run_once(hub: Hub, clock: Clock) -> None:
    """run_cap counts runs, not attempts; when all have ended the sweep is finished and agents are sent home."""
    sweep = make_sweep(hub, OWN_SWEEP + "run_cap: 2\n")
    agent, other = make_agent(hub, sweep), make_agent(hub, sweep)
    first = claim(hub, agent)["run_id"]
    start(hub, sweep, first)
    clock.pass_by(10)
    assert claim(hub, agent)["run_id"] == first
    second = claim(hub, other)["run_id"]
    start(hub, sweep, second)
    end(hub, sweep, second)
    assert hub.heartbeat(other, set()) is None, "the first may still need an agent"
    assert hub.records.sweep_by_id(sweep.id).state is SweepState.RUNNING
    start(hub, sweep, first)
    end(hub, sweep, first)
    assert hub.heartbeat(other, set()) == {"type": "exit"}
    assert hub.heartbeat(agent, set()) == {"type": "exit"}
    assert hub.records.sweep_by_id(sweep.id).state is SweepState.FINISHED
    assert len(hub.listing.sweep_runs(sweep.id)) == 2


def test_an_exhausted_search_finishes_the_sweep(hub: Hub) -> None:
    """A grid that is done ends like a cap that is reached."""
    sweep = make_sweep(hub)
    agent = make_agent(hub, sweep)
    assert isinstance(hub.suggester, Suggestions)
    hub.suggester.answer = lambda: Exhausted("all tried")
    assert hub.heartbeat(agent, set()) == {"type": "exit"}
    assert hub.records.sweep_by_id(sweep.id).state is SweepState.FINISHED


def test_a_paused_sweep_gives_nothing_and_resumes(hub: Hub) -> None:
    """While paused, agents wait; resumed, they go on."""
    sweep = make_sweep(hub)
    agent = make_agent(hub, sweep)
    hub.revise_sweep(sweep.id, SweepChange(state="PAUSED"))
    assert hub.heartbeat(agent, set()) is None
    hub.revise_sweep(sweep.id, SweepChange(state="RUNNING"))
    assert claim(hub, agent)["type"] == "run"


def test_a_stopped_sweep_lets_runs_finish(hub: Hub) -> None:
    """FINISHED by its user: a busy agent is left alone, an idle one is sent home."""
    sweep = make_sweep(hub)
    agent = make_agent(hub, sweep)
    name = claim(hub, agent)["run_id"]
    start(hub, sweep, name)
    hub.revise_sweep(sweep.id, SweepChange(state="FINISHED"))
    assert hub.heartbeat(agent, {name}) is None
    end(hub, sweep, name)
    assert hub.heartbeat(agent, set()) == {"type": "exit"}


def test_a_cancelled_sweep_stops_its_runs_in_tiers(hub: Hub, clock: Clock) -> None:
    """Cancelled: the run is asked at once, its agent is told to end it after the grace, then to exit."""
    sweep = make_sweep(hub)
    agent = make_agent(hub, sweep)
    name = claim(hub, agent)["run_id"]
    start(hub, sweep, name)
    hub.revise_sweep(sweep.id, SweepChange(state="CANCELED"))
    assert hub.stream(sweep.entity, sweep.project, name, StreamPost()).stop_requested_at is not None
    assert hub.heartbeat(agent, {name}) is None
    clock.pass_by(hub.timeouts.stop_grace)
    assert hub.heartbeat(agent, {name}) == {"type": "stop", "run_id": name}
    assert hub.heartbeat(agent, {name}) == {"type": "stop", "run_id": name}, "repeated while the run is listed"
    assert hub.heartbeat(agent, set()) == {"type": "exit"}
    assert state(hub, sweep, name) is RunState.KILLED


def test_a_cancelled_sweep_cannot_run_again(hub: Hub) -> None:
    """CANCELED is for good, and the refusal says so."""
    sweep = make_sweep(hub)
    hub.revise_sweep(sweep.id, SweepChange(state="CANCELED"))
    with pytest.raises(Conflict, match="is CANCELED and cannot become RUNNING"):
        hub.revise_sweep(sweep.id, SweepChange(state="RUNNING"))


def test_a_stopped_run_that_ends_badly_is_killed_not_queued(hub: Hub) -> None:
    """Who asked a trial to stop does not want it back, whatever its exit code and marks say."""
    sweep = make_sweep(hub, OWN_SWEEP)
    agent = make_agent(hub, sweep)
    name = claim(hub, agent)["run_id"]
    start(hub, sweep, name)
    run = hub.records.run(sweep.entity, sweep.project, name)
    assert run is not None
    hub.stop_run(run.id)
    assert end(hub, sweep, name, exit_code=1, preempting=True).state is RunState.KILLED


def test_a_deleted_sweep_tells_its_agents(hub: Hub) -> None:
    """The agent of a deleted sweep is unknown, which the client reads as the end; the runs stay in the project."""
    sweep = make_sweep(hub)
    agent = make_agent(hub, sweep)
    name = claim(hub, agent)["run_id"]
    hub.delete_sweep(sweep.id)
    with pytest.raises(Missing):
        hub.heartbeat(agent, {name})
    assert hub.records.run(sweep.entity, sweep.project, name) is not None


def test_the_controller_is_poked_when_runs_come_and_go(hub: Hub, clock: Clock) -> None:
    """A claim, an end and a loss each make the controller think again; a plain heartbeat does not."""
    sweep = make_sweep(hub)
    agent = make_agent(hub, sweep)
    assert isinstance(hub.suggester, Suggestions)
    poked = hub.suggester.poked
    poked.clear()
    name = claim(hub, agent)["run_id"]
    assert poked == [sweep.id]
    hub.heartbeat(agent, {name})
    assert poked == [sweep.id]
    start(hub, sweep, name)
    end(hub, sweep, name)
    assert poked == [sweep.id] * 2
