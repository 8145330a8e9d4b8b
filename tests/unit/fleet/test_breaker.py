"""The circuit breaker of a host: when it pauses, what it tries then, and what makes it go on."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.infra.fleet.supervision import supervise
from prunefleet.infra.fleet.supervision.breaker import FAILURES, FIRST_PAUSE, LONGEST_PAUSE, Allowed, Breaker
from prunefleet.infra.fleet.supervision.supervise import Agent, Supervisor
from prunefleet.objective import host_outcomes
from prunefleet.objective.host_outcomes import HostOutcome
from prunefleet.objective.trial import Failure, FailureKind

from support.paths import ROOT
from support.wait import wait_for

ILL = HostOutcome("r", Failure(FailureKind.DEVICE, "measure", "CPU is lost"))
WELL, POOR = HostOutcome("r"), HostOutcome("r", Failure(FailureKind.DIVERGED, "train", "loss is NaN"))


def test_three_failures_in_a_row_pause_the_host() -> None:
    """The line says for how long, why, and where to look; a candidate's failure in between is an answer."""
    breaker = Breaker()
    assert breaker.learn([ILL, ILL, POOR, ILL, ILL], 0.0) is None and breaker.allowed(0.0) is Allowed.ALL
    told = breaker.learn([ILL], 10.0)
    assert told and told.startswith(
        "This host pauses for 1 min: 3 trials in a row failed here, the last in measure: dev"
    )
    assert "CPU is lost" in told and "`prunefleet doctor`" in told
    assert breaker.allowed(10.0 + FIRST_PAUSE - 1) is Allowed.NONE
    assert breaker.allowed(10.0 + FIRST_PAUSE) is Allowed.ONE


def test_a_single_trial_decides() -> None:
    """If it fails the pause is twice as long, up to a quarter of an hour; an answer lets all agents go on."""
    breaker = Breaker()
    now, pauses = 0.0, []
    breaker.learn([ILL] * FAILURES, now)
    for _ in range(6):
        assert breaker.until is not None
        pauses.append(breaker.until - now)
        now = breaker.until
        told = breaker.learn([ILL], now)
        assert told and "the trial that was tried failed too" in told
    assert pauses == [60.0, 120.0, 240.0, 480.0, 900.0, LONGEST_PAUSE]
    assert breaker.until is not None
    assert breaker.learn([WELL], breaker.until) == "A trial came to an answer: this host's agents go on."
    assert breaker.allowed(now) is Allowed.ALL and breaker == Breaker()


def test_what_was_under_way_does_not_lengthen_the_pause() -> None:
    """Other agents' trials may fail while the host pauses already; one that comes to an answer ends the pause."""
    breaker = Breaker()
    breaker.learn([ILL] * FAILURES, 0.0)
    assert breaker.learn([ILL, ILL], 1.0) is None and breaker.until == FIRST_PAUSE
    assert breaker.learn([WELL], 2.0) and breaker.allowed(2.0) is Allowed.ALL


@given(st.lists(st.tuples(st.sampled_from([ILL, WELL, POOR]), st.floats(0, 2000)), max_size=40))
def test_a_host_never_rests_for_longer_than_the_longest_pause(events: list[tuple[HostOutcome, float]]) -> None:
    """Whatever happens, a trial is tried again within it; and without three failures in a row nothing ever pauses."""
    breaker, now, row = Breaker(), 0.0, 0
    for outcome, seconds in events:
        now += seconds
        breaker.learn([outcome], now)
        row = row + 1 if outcome is ILL else 0
        assert breaker.allowed(now + LONGEST_PAUSE) is not Allowed.NONE
        assert row >= FAILURES or breaker.allowed(now) is Allowed.ALL


def test_outcomes_travel_as_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole lines are read once each, damaged ones are left out, interruptions are never written."""
    path = tmp_path / "outcomes.jsonl"
    host_outcomes.note("unheard")
    monkeypatch.setenv(host_outcomes.VARIABLE, str(path))
    host_outcomes.note("a", ILL.failure)
    host_outcomes.note("b", Failure(FailureKind.INTERRUPTED, "train", "stopped"))
    host_outcomes.note("c")
    found, end = host_outcomes.read(path)
    assert found == [HostOutcome("a", ILL.failure), HostOutcome("c")] and found[0].blames_host
    with path.open("a") as file:
        file.write("{}\nnothing\n" + '{"run": "d", "fail')
    assert host_outcomes.read(path, end)[0] == []
    with path.open("a") as file:
        file.write('ure": null}\n')
    assert host_outcomes.read(path, end)[0] == [HostOutcome("d")]
    assert host_outcomes.read(tmp_path / "none", 7) == ([], 7)
    monkeypatch.setenv(host_outcomes.VARIABLE, str(tmp_path / "no" / "folder"))
    host_outcomes.note("lost")


AGENT = """
import json, os, sys, time
from prunefleet.objective import host_outcomes as outcomes
from prunefleet.objective.trial import Failure, FailureKind
if "--count" not in sys.argv:
    for _ in range(3):
        outcomes.note("r", Failure(FailureKind.DEVICE, "measure", "lost"))
    time.sleep(60)
outcomes.note("r")
"""


def test_a_host_is_idle_while_its_server_sends_its_agents_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that ends well at once was told so; one that failed, or worked for long, was not."""
    now, program = 1000.0, "pass"
    monkeypatch.setattr(supervise, "agent_command", lambda *_: [sys.executable, "-c", program])
    monkeypatch.setattr(supervise.time, "monotonic", lambda: now)
    supervisor = Supervisor([Agent(1, "e/p/s", dict(os.environ), tmp_path, tmp_path)])

    def run_one(seconds: float) -> bool:
        nonlocal now
        now += supervise.LONGEST_PAUSE
        supervisor.tend()
        wait_for(lambda: not supervisor.busy(), 30)
        now += seconds
        supervisor.tend()
        return supervisor.idle()

    assert not supervisor.idle()
    assert run_one(1) and run_one(1)
    assert not run_one(supervise.HEALTHY_AFTER + 1)
    assert run_one(1)
    program = "raise SystemExit(1)"
    assert not run_one(1)


def test_an_ill_hosts_agents_end_and_a_single_one_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three failures end both agents; after the pause one of them runs one trial, whose answer brings both back."""

    def command(sweep: str, most: int | None = None) -> list[str]:
        return [sys.executable, "-c", AGENT, *([] if most is None else ["--count", str(most)])]

    now = 1000.0
    monkeypatch.setattr(supervise, "agent_command", command)
    monkeypatch.setattr(supervise.time, "monotonic", lambda: now)
    path, said = tmp_path / "outcomes.jsonl", list[str]()
    env = {**os.environ, host_outcomes.VARIABLE: str(path), "PYTHONPATH": str(ROOT)}
    agents = [Agent(number, "e/p/s", env, tmp_path, tmp_path) for number in (1, 2)]
    supervisor = Supervisor(agents, path, said.append)
    try:
        supervisor.tend()
        wait_for(lambda: len(host_outcomes.read(path)[0]) == 6, 30)
        supervisor.tend()
        assert len(said) == 1 and said[0].startswith("This host pauses for 1 min")
        wait_for(lambda: not supervisor.busy(), 30)
        now += 30
        supervisor.tend()
        assert not supervisor.busy() and [agent.starts for agent in agents] == [1, 1]
        now += 40
        supervisor.tend()
        assert [agent.starts for agent in agents] == [2, 1]
        wait_for(lambda: not supervisor.busy(), 30)
        supervisor.tend()
        assert said[1:] == ["A trial came to an answer: this host's agents go on."]
        now += 40
        supervisor.tend()
        assert [agent.starts for agent in agents] == [3, 2]
    finally:
        supervisor.stop(patience=5)
