"""Runs that are lost: whose agent, host or process was not heard for too long, or that their host left behind."""

from pathlib import Path

import pytest

from prunefleet.infra.hub.hub import Hub
from prunefleet.infra.hub.runs.runs import RunChange, StreamPost
from prunefleet.infra.hub.store.rows import RunState

from support.hub import SWEEP, Clock, first_user, local_hub, make_agent, make_sweep
from support.runs import claimed, found, start

OWN_SWEEP = SWEEP.replace("train.py", "prunefleet")


@pytest.mark.parametrize(("text", "expected"), [(SWEEP, RunState.FAILED), (OWN_SWEEP, RunState.PREEMPTED)])
def test_a_run_given_to_an_agent_that_vanished_expires(hub: Hub, clock: Clock, text: str, expected: RunState) -> None:
    """A pending run whose agent falls silent does not stay pending: it fails, or waits for another agent."""
    sweep = make_sweep(hub, text)
    name = claimed(hub, make_agent(hub, sweep))
    clock.pass_by(50)
    assert hub.reap() == 0
    clock.pass_by(20)
    assert hub.reap() == 1
    assert found(hub, name).state is expected


def test_a_run_whose_host_is_silent_is_lost(hub: Hub, clock: Clock) -> None:
    """A machine that died is noticed by silence alone; a run that is heard again was only out of reach."""
    sweep = make_sweep(hub)
    name = claimed(hub, make_agent(hub, sweep))
    start(hub, name, sweep=sweep.name)
    clock.pass_by(hub.timeouts.host_silence)
    assert hub.reap() == 0
    clock.pass_by(1)
    assert hub.reap() == 1
    assert found(hub, name).state is RunState.CRASHED
    hub.stream(sweep.entity, sweep.project, name, StreamPost())
    assert found(hub, name).state is RunState.RUNNING


def test_a_run_of_a_host_that_is_back_is_lost_sooner(hub: Hub, clock: Clock) -> None:
    """A machine that was started again has begun another agent: what the one before held is not waited for so long."""
    sweep = make_sweep(hub)
    make_agent(hub, sweep)
    agent = make_agent(hub, sweep)
    name = claimed(hub, agent)
    start(hub, name, sweep=sweep.name)
    clock.pass_by(hub.timeouts.superseded_silence + 1)
    assert hub.reap() == 0, "the agent beside it began before"
    hub.heartbeat(agent, {name})
    clock.pass_by(1)
    make_agent(hub, sweep)
    clock.pass_by(hub.timeouts.superseded_silence - 1)
    assert hub.reap() == 0, "a run whose agent was killed may still speak"
    clock.pass_by(1)
    assert hub.reap() == 1
    assert found(hub, name).state is RunState.CRASHED


def test_a_run_that_its_host_left_behind_is_lost_at_once(hub: Hub, clock: Clock) -> None:
    """A host that began anew says so; what was heard a moment ago, or is another host's, stays."""
    sweep = make_sweep(hub)
    mine, other = (claimed(hub, make_agent(hub, sweep, host)) for host in ("mine", "other"))
    for name in (mine, other):
        start(hub, name, sweep=sweep.name)
    clock.pass_by(hub.timeouts.certain_silence)
    lost, heard = hub.left_behind(sweep.id, "mine", {mine, other, "nothing"})
    assert (lost, [run.name for run in heard]) == ([], [mine])
    clock.pass_by(1)
    lost, heard = hub.left_behind(sweep.id, "mine", {mine, other, "nothing"})
    assert ([run.name for run in lost], heard) == ([mine], [])
    assert found(hub, mine).state is RunState.CRASHED and found(hub, other).state is RunState.RUNNING
    assert hub.left_behind(sweep.id, "mine", {mine}) == ([], []), "what has ended stays as it is"


@pytest.mark.parametrize("who", ["agent", "run"])
def test_a_run_is_kept_while_it_or_its_agent_speaks(hub: Hub, clock: Clock, who: str) -> None:
    """An agent killed with -9 leaves its run at work; a run in a long silent step has its agent's word."""
    sweep = make_sweep(hub)
    agent = make_agent(hub, sweep)
    name = claimed(hub, agent)
    start(hub, name, sweep=sweep.name)
    for _ in range(10):
        clock.pass_by(80)
        if who == "agent":
            hub.heartbeat(agent, {name})
        else:
            hub.stream(sweep.entity, sweep.project, name, StreamPost())
        assert hub.reap() == 0


def test_a_run_of_its_own_is_lost_after_a_longer_silence(hub: Hub, clock: Clock) -> None:
    """Without an agent to ask, the hub waits as W&B does."""
    hub.begin_run(first_user(hub), RunChange(project="p", name="alone", host="h"))
    hub.begin_run(first_user(hub), RunChange(project="p", name="later", state="pending"))
    clock.pass_by(hub.timeouts.run_silence)
    assert hub.reap() == 0
    clock.pass_by(1)
    assert hub.reap() == 1
    later = hub.records.run("local", "p", "later")
    assert later is not None
    assert later.state is RunState.PENDING, "made by hand, to be started some day"


def test_runs_of_a_deleted_sweep_come_to_an_end(hub: Hub, clock: Clock) -> None:
    """Nothing stays pending for ever because its sweep is gone."""
    sweep = make_sweep(hub, OWN_SWEEP)
    name = claimed(hub, make_agent(hub, sweep))
    hub.delete_sweep(sweep.id)
    clock.pass_by(hub.timeouts.agent_silence + 1)
    assert hub.reap() == 1
    assert found(hub, name).state is RunState.FAILED


def test_nothing_is_lost_because_the_hub_was_away(tmp_path: Path, clock: Clock) -> None:
    """After a restart silence is counted from the hub's own start."""
    with local_hub(tmp_path, clock) as hub:
        sweep = make_sweep(hub)
        running, waiting = make_agent(hub, sweep), make_agent(hub, sweep)
        name = claimed(hub, running)
        start(hub, name, sweep=sweep.name)
        given = claimed(hub, waiting)
    clock.pass_by(3600)
    with local_hub(tmp_path, clock) as hub:
        assert hub.reap() == 0
        assert hub.heartbeat(running, {name}) is None
        assert claimed(hub, waiting) == given
        clock.pass_by(hub.timeouts.run_silence + 1)
        assert hub.reap() == 2
