"""Runs that somebody else chooses (enqueued, or a local controller's), prior runs, and runs stopped early."""

from typing import Any

import pytest

from prunefleet.infra.controller.contract import Exhausted
from prunefleet.infra.controller.parameters import parse
from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.runs import StreamPost
from prunefleet.infra.hub.runs.sweeps import SweepChange
from prunefleet.infra.hub.store.errors import Conflict, Invalid
from prunefleet.infra.hub.store.rows import RunState, SweepRow, SweepState
from prunefleet.infra.hub.suggest.input import prior_trials

from support.hub import SWEEP, Clock, Suggestions, make_agent, make_sweep
from support.runs import claimed, finish, found, start

QUEUE = "method: custom\nparameters: {}\n"
LOCAL = SWEEP + "controller: {type: local}\n"
SCHEDULED = SWEEP + "scheduler: {engine: optuna}\n"
EXIT = {"type": "exit"}


def state(hub: Hub, sweep: SweepRow) -> SweepState:
    return hub.records.sweep_by_id(sweep.id).state


# Enqueued runs


def test_an_enqueued_run_waits_for_an_agent(hub: Hub, clock: Clock) -> None:
    """It is there as pending, for however long, and the agent that takes it is given its values."""
    sweep = make_sweep(hub, QUEUE)
    queued = hub.enqueue(sweep.id, {"lr": {"value": 0.1}, "deep": {"value": {"a": 1}}}, "the first")
    assert (queued.state, queued.display_name, queued.agent) == (RunState.PENDING, "the first", None)
    clock.pass_by(10_000)
    assert hub.reap() == 0
    command = hub.heartbeat(make_agent(hub, sweep), set())
    assert command is not None
    assert (command["type"], command["run_id"]) == ("run", queued.name)
    assert command["args"] == {"lr": {"value": 0.1}, "deep": {"value": {"a": 1}}}
    assert found(hub, queued.name).retries == 0


def test_the_queue_goes_oldest_first_and_before_suggestions(hub: Hub) -> None:
    """Whoever enqueued first is served first; only then does the hub suggest anything itself."""
    sweep = make_sweep(hub)
    names = [hub.enqueue(sweep.id, {"lr": {"value": value}}).name for value in (1, 2, 3)]
    agents = [make_agent(hub, sweep) for _ in range(4)]
    assert [claimed(hub, agent) for agent in agents[:3]] == names
    assert claimed(hub, agents[3]) not in names


def test_a_run_given_back_goes_before_the_queue(hub: Hub) -> None:
    """What a host's failure gave back is resumed before what waits for its first agent."""
    sweep = make_sweep(hub, QUEUE)
    first, second = (hub.enqueue(sweep.id, {"n": n}).name for n in (1, 2))
    agent = make_agent(hub, sweep)
    assert claimed(hub, agent) == first
    start(hub, first)
    hub.stream("local", "demo", first, StreamPost(preempting=True, complete=True, exit_code=1))
    assert hub.heartbeat(agent, set()) == {
        "type": "resume",
        "run_id": first,
        "args": {"n": {"value": 1}},
        "program": None,
        "id": first,
        "logs": [],
    }
    assert claimed(hub, make_agent(hub, sweep)) == second


@pytest.mark.parametrize("text", [QUEUE, LOCAL, SCHEDULED])
def test_a_sweep_that_only_queues_waits_for_more(hub: Hub, text: str) -> None:
    """Its idle agents are told nothing, it never asks the hub's own controller, and it does not finish."""
    sweep = make_sweep(hub, text)
    agent = make_agent(hub, sweep)
    assert hub.heartbeat(agent, set()) is None
    name = hub.enqueue(sweep.id, {"lr": {"value": 1}}).name
    assert claimed(hub, agent) == name
    start(hub, name)
    finish(hub, name)
    assert hub.heartbeat(agent, set()) is None
    assert state(hub, sweep) is SweepState.RUNNING
    assert isinstance(hub.suggester, Suggestions)
    assert hub.suggester.count == 0


@pytest.mark.parametrize("text", [QUEUE, SWEEP])
def test_the_cap_counts_what_was_enqueued(hub: Hub, text: str) -> None:
    """run_cap holds for queued and suggested runs together, and when all have ended the sweep is finished."""
    sweep = make_sweep(hub, text + "run_cap: 2\n")
    names = [hub.enqueue(sweep.id, {"lr": {"value": 1}}).name for _ in range(2)]
    with pytest.raises(Conflict, match=r"run_cap: sweep \w+ has its 2 runs; raise it"):
        hub.enqueue(sweep.id, {"lr": {"value": 1}})
    agent = make_agent(hub, sweep)
    for name in names:
        assert claimed(hub, agent) == name
        start(hub, name)
        finish(hub, name)
    assert hub.heartbeat(agent, set()) == EXIT
    assert state(hub, sweep) is SweepState.FINISHED


def test_an_exhausted_search_still_serves_the_queue(hub: Hub) -> None:
    """A grid that is done finishes its sweep only after what was enqueued beside it."""
    sweep = make_sweep(hub)
    assert isinstance(hub.suggester, Suggestions)
    hub.suggester.answer = lambda: Exhausted("all tried")
    name = hub.enqueue(sweep.id, {"lr": {"value": 1}}).name
    agent, idle = make_agent(hub, sweep), make_agent(hub, sweep)
    assert claimed(hub, agent) == name
    assert hub.heartbeat(idle, set()) is None
    start(hub, name)
    finish(hub, name)
    assert hub.heartbeat(idle, set()) == EXIT


@pytest.mark.parametrize("ended", ["CANCELED", "FINISHED"])
def test_an_ended_sweep_takes_no_runs_and_keeps_none_waiting(hub: Hub, ended: str) -> None:
    """Stopping or cancelling a sweep kills what no agent was given yet, and refuses more."""
    sweep = make_sweep(hub, QUEUE)
    name = hub.enqueue(sweep.id, {"n": 1}).name
    hub.revise_sweep(sweep.id, SweepChange(state=ended))
    assert found(hub, name).state is RunState.KILLED
    with pytest.raises(Conflict, match=f"is {ended} and takes no runs"):
        hub.enqueue(sweep.id, {"n": 1})


def test_a_deleted_sweep_leaves_nothing_waiting(hub: Hub) -> None:
    """Its queue is killed with it; the runs stay in the project."""
    sweep = make_sweep(hub, QUEUE)
    name = hub.enqueue(sweep.id, {"n": 1}).name
    hub.delete_sweep(sweep.id)
    assert found(hub, name).state is RunState.KILLED


def test_a_queued_run_that_is_stopped_never_starts(hub: Hub) -> None:
    """A stop request takes a run out of the queue."""
    sweep = make_sweep(hub, QUEUE)
    queued = hub.enqueue(sweep.id, {"n": 1})
    hub.stop_run(queued.id)
    assert found(hub, queued.name).state is RunState.KILLED
    assert hub.heartbeat(make_agent(hub, sweep), set()) is None


def test_an_enqueued_run_without_values_stays_without(hub: Hub) -> None:
    """A run resumed after it wrote its own configuration is given what it was enqueued with: nothing."""
    sweep = make_sweep(hub, QUEUE)
    name = hub.enqueue(sweep.id, {}).name
    agent = make_agent(hub, sweep)
    assert claimed(hub, agent) == name
    start(hub, name, config={"device": {"value": "cpu"}})
    hub.stream("local", "demo", name, StreamPost(preempting=True, complete=True, exit_code=1))
    command = hub.heartbeat(agent, set())
    assert command is not None
    assert command["args"] == {}


# The local controller


def schedule(hub: Hub, sweep: SweepRow, key: str, args: object, **more: Any) -> SweepRow:
    asked = {"schedule": [{"id": key, "data": {"args": args}}], **more}
    return hub.revise_sweep(sweep.id, SweepChange(controller=asked))


def test_a_local_controller_schedules_each_run_once(hub: Hub) -> None:
    """An entry becomes a queued run, told by its id; sent again it changes nothing."""
    sweep = make_sweep(hub, LOCAL)
    told = schedule(hub, sweep, "one", {"lr": {"value": 0.5}}).scheduler
    assert schedule(hub, sweep, "one", {"lr": {"value": 0.5}}).scheduler == told
    (run,) = hub.listing.sweep_runs(sweep.id)
    assert told["scheduled"] == [{"id": "one", "runid": run.name}]
    assert (run.state, run.args) == (RunState.PENDING, {"lr": 0.5})
    assert claimed(hub, make_agent(hub, sweep)) == run.name


def test_a_local_search_that_is_exhausted_finishes_its_sweep(hub: Hub) -> None:
    """No arguments mean no more runs: the sweep ends with its last run, not before."""
    sweep = make_sweep(hub, LOCAL)
    agent, idle = make_agent(hub, sweep), make_agent(hub, sweep)
    schedule(hub, sweep, "one", {"lr": {"value": 0.5}})
    name = claimed(hub, agent)
    start(hub, name)
    schedule(hub, sweep, "two", None)
    assert hub.heartbeat(idle, set()) is None
    finish(hub, name)
    assert hub.heartbeat(idle, set()) == EXIT
    assert state(hub, sweep) is SweepState.FINISHED


def test_a_local_controller_cannot_pass_the_cap(hub: Hub) -> None:
    """What it schedules beyond run_cap is not made, and the sweep ends."""
    sweep = make_sweep(hub, LOCAL + "run_cap: 1\n")
    schedule(hub, sweep, "one", {"lr": {"value": 0.5}})
    schedule(hub, sweep, "two", {"lr": {"value": 0.6}})
    agent = make_agent(hub, sweep)
    name = claimed(hub, agent)
    start(hub, name)
    finish(hub, name)
    assert hub.heartbeat(agent, set()) == EXIT
    assert len(hub.listing.sweep_runs(sweep.id)) == 1


def test_a_local_controller_stops_runs(hub: Hub) -> None:
    """Runs on its earlystop list are asked to stop, and say so."""
    sweep = make_sweep(hub, LOCAL)
    schedule(hub, sweep, "one", {"lr": {"value": 0.5}})
    name = claimed(hub, make_agent(hub, sweep))
    start(hub, name)
    hub.revise_sweep(sweep.id, SweepChange(controller={"earlystop": [name, "unknown"]}))
    assert found(hub, name).stop_reason == "early_terminate: the local controller asked for it"
    assert finish(hub, name, exit_code=1).state is RunState.KILLED


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"schedule": 3}, "controller.schedule: got int"),
        ({"schedule": [{"id": "one"}]}, "controller.schedule: send entries"),
        ({"schedule": [{"data": {"args": None}}]}, "controller.schedule: send entries"),
        ({"earlystop": "all"}, "controller.earlystop: got str"),
    ],
)
def test_nonsense_of_a_local_controller_is_refused(hub: Hub, asked: dict[str, Any], message: str) -> None:
    """A document of another shape changes nothing and is named."""
    sweep = make_sweep(hub, LOCAL)
    with pytest.raises(Invalid, match=message):
        hub.revise_sweep(sweep.id, SweepChange(controller=asked))
    assert hub.records.sweep_by_id(sweep.id).controller == {}


def test_a_sweep_of_the_hub_has_no_local_controller(hub: Hub) -> None:
    """Two searches at once would disagree, so the second is refused."""
    with pytest.raises(Invalid, match="the sweep has no local controller"):
        schedule(hub, make_sweep(hub), "one", {})


def test_the_log_of_a_scheduler_ends_with_its_silence(hub: Hub, clock: Clock) -> None:
    """The client never ends the run that holds it, so it counts as finished, not as crashed."""
    sweep = make_sweep(hub, SCHEDULED)
    start(hub, f"controller-{sweep.name}")
    clock.pass_by(hub.timeouts.run_silence + 1)
    assert hub.reap() == 1
    assert found(hub, f"controller-{sweep.name}").state is RunState.FINISHED


# Prior runs


def test_prior_runs_teach_and_do_not_count(hub: Hub) -> None:
    """Runs from before are given to the controller if they have ended and fit; run_cap does not know them."""
    for name, lr in (("good", 0.1), ("live", 0.2), ("odd", None)):
        start(hub, name, config={} if lr is None else {"lr": {"value": lr}})
        hub.stream("local", "demo", name, StreamPost(summary={"loss": 1.0}, complete=name != "live"))
    ids = [found(hub, name).id for name in ("good", "live", "odd")]
    sweep = make_sweep(hub, SWEEP + "run_cap: 1\n", prior_runs=ids)
    prior = hub.records.prior_runs(sweep.id)
    assert [run.name for run in prior] == ["good", "live", "odd"]
    trials = prior_trials(prior, sweep, parse(sweep.config["parameters"]))
    assert [(trial.name, trial.value, trial.prior, trial.answered) for trial in trials] == [("good", 1.0, True, True)]
    assert hub.listing.sweep_runs(sweep.id) == []
    claimed(hub, make_agent(hub, sweep))
    hub.run_edits.delete(ids[0], with_artifacts=False)
    assert [run.name for run in hub.records.prior_runs(sweep.id)] == ["live", "odd"]


# Early termination
