"""Agents paused, drained, stopped and lost: what the unmodified `wandb agent` does with it.

With the older client one agent is in `make test`, with a run that it left behind; the others in `make test-all`.
"""

import json
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.clients import Client
from support.hub import HubProcess, basic
from support.measure import children
from support.wait import wait_for

# A run goes on until the file `go-RUN` is there; told to end, it hands itself back.
TRAIN = """
import os, pathlib, signal, sys, time
import wandb

run = wandb.init(resume="allow")

def hand_back(*_):
    run.mark_preempting()
    run.finish(exit_code=1)
    os._exit(1)

signal.signal(signal.SIGTERM, hand_back)
run.log({"loss": 1.0})
while not pathlib.Path(f"go-{run.id}").exists():
    time.sleep(0.1)
"""
FUNCTION = """
import pathlib, sys, time, wandb

def train():
    with wandb.init(settings=wandb.Settings(console="off")) as run:
        run.log({"loss": 1.0})
        while not pathlib.Path(f"go-{run.id}").exists():
            time.sleep(0.1)

wandb.agent(sys.argv[1], function=train)
"""
SWEEP = """
program: train.py
method: grid
metric: {name: loss, goal: minimize}
parameters:
  x: {values: [1, 2, 3, 4, 5, 6]}
"""


@dataclass
class Fleet:
    """A hub with a sweep of programs and one of functions, their agents, and what came of each thing that was asked."""

    hub: HubProcess
    path: str
    agents: list[subprocess.Popen[str]] = field(default_factory=list)
    noted: dict[str, Any] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """What the sweep's own address tells of its agents."""
        project, _, name = self.path.rpartition("/")
        headers = {"Authorization": basic(self.hub.api_key)}
        request = urllib.request.Request(f"{self.hub.url}/{project}/sweeps/{name}/agents.json", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.load(answer))

    def agent(self, at: int) -> dict[str, Any]:
        return dict(self.told()["agents"][at])

    def ask(self, action: str, *agents: str) -> None:
        """Of the first of the agents, which concerns them all."""
        project, _, name = self.path.rpartition("/")
        status, answer = self.hub.post(f"/{project}/sweeps/{name}/agents.json", {"action": action, "agent": agents[0]})
        assert (status, answer.get("concerned")) == (200, list(agents)), answer

    def begin(self, function: bool = False) -> int:
        """Start a `wandb agent`; its place in the list once it has joined."""
        at = len(self.told()["agents"])
        argv = ["-c", FUNCTION, self.path] if function else ["-m", "wandb", "agent", self.path]
        self.agents.append(self.hub.popen(str(self.hub.client.python), *argv))
        wait_for(lambda: len(self.told()["agents"]) > at, 60)
        return at

    def run_of(self, at: int) -> str:
        """The run that the agent holds, once it has logged."""
        return str(wait_for(lambda: (name := self.agent(at)["run"]) and self.run(name)["lines"] and name, 90))

    def idle_beats(self, at: int) -> None:
        """Until the agent was heard twice without a run."""
        seen: set[str] = set()

        def heard() -> bool:
            agent = self.agent(at)
            if agent["run"] is None:
                seen.add(agent["heard"])
            return len(seen) > 2  # the first beat may still have listed a run

        wait_for(heard, 60)

    def run(self, name: str) -> dict[str, Any]:
        text = 'query R($n: String!) {project(name: "lab") {run(name: $n) {state lines: historyLineCount}}}'
        return dict(self.hub.query(text, n=name)["project"]["run"])

    def runs(self) -> int:
        text = 'query S($n: String!) {project(name: "lab") {sweep(sweepName: $n) {runCount}}}'
        return int(self.hub.query(text, n=self.path.rpartition("/")[2])["project"]["sweep"]["runCount"])

    def let_end(self, name: str) -> None:
        (self.hub.folder / f"go-{name}").touch()


def make(hub: HubProcess) -> Fleet:
    text = 'mutation($c: String!) {upsertSweep(input: {projectName: "lab", config: $c}) {sweep {name}}}'
    return Fleet(hub, f"local/lab/{hub.query(text, c=SWEEP)['upsertSweep']['sweep']['name']}")


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory, wandb_client: Client) -> Iterator[Fleet]:
    """One agent is paused, resumed and stopped under its second run; the next waits in its place, is resumed, drained.

    Beside it a function's agent is drained. Each thing that was seen on the way is noted.
    """
    folder: Path = tmp_path_factory.mktemp("agents")
    with HubProcess(folder, client=wandb_client) as hub:
        (folder / "train.py").write_text(TRAIN)
        fleet, functions = make(hub), make(hub)
        note = fleet.noted
        place, first = functions.begin(function=True), fleet.begin()
        one = fleet.run_of(first)
        name = fleet.agent(first)["name"]
        fleet.ask("pause", name)
        fleet.let_end(one)
        fleet.idle_beats(first)
        note["paused"] = (fleet.run(one)["state"], fleet.runs(), fleet.agent(first)["state"])
        fleet.ask("resume", name)
        two = fleet.run_of(first)
        fleet.ask("stop", name)
        note["stopped"] = (fleet.agents[0].wait(60), fleet.run(two)["state"], fleet.agent(first)["state"])
        second = fleet.begin()
        fleet.idle_beats(second)
        note["held"] = (fleet.runs(), fleet.agent(second)["state"])
        fleet.ask("resume", name, fleet.agent(second)["name"])
        note["again"] = (fleet.run_of(second) == two, fleet.runs())
        fleet.let_end(two)
        three = wait_for(lambda: (held := fleet.run_of(second)) != two and held, 90)
        fleet.ask("drain", fleet.agent(second)["name"])
        function = functions.run_of(place)
        functions.ask("drain", functions.agent(place)["name"])
        for run in (three, function):
            fleet.let_end(run)
        note["drained"] = (fleet.agents[1].wait(60), fleet.run(three)["state"], fleet.agent(second)["state"])
        note["function"] = (functions.agents[0].wait(60), fleet.run(function)["state"], functions.runs())
        note["two"] = fleet.run(two)
        yield fleet


def test_a_paused_agent_waits_until_it_is_resumed(driven: Fleet) -> None:
    """Its run ends well and no other comes, though the grid has some; `resume` brings the next one."""
    assert driven.noted["paused"] == ("finished", 1, "paused")


def test_a_stopped_agent_hands_its_run_back_and_exits(driven: Fleet) -> None:
    """The process of its run is told to end, the agent ends with 0, and the run waits for another agent."""
    assert driven.noted["stopped"] == (0, "preempted", "stopped")


def test_what_takes_a_stopped_agents_place_waits(driven: Fleet) -> None:
    """An agent that joins from its host is given neither that run nor another, until the place is free again."""
    assert driven.noted["held"] == (2, "paused")
    assert driven.noted["again"] == (True, 2)
    assert driven.noted["two"] == {"state": "finished", "lines": 2}


def test_a_drained_agent_exits_after_its_run(driven: Fleet) -> None:
    """The run under way ends well, then `wandb agent` and `wandb.agent(function=…)` end with 0, without another run."""
    assert driven.noted["drained"] == (0, "finished", "drained")
    assert driven.noted["function"] == (0, "finished", 1)


@pytest.mark.older_alone
def test_a_host_says_which_run_it_left_behind(tmp_path: Path, wandb_client: Client) -> None:
    """A run whose agent and process were killed together is lost seconds after its host has said so."""
    with HubProcess(tmp_path, client=wandb_client) as hub:
        (tmp_path / "train.py").write_text(TRAIN)
        fleet = make(hub)
        run = fleet.run_of(fleet.begin())
        for pid in _tree(fleet.agents[0].pid):
            os.kill(pid, signal.SIGKILL)
        project, _, name = fleet.path.rpartition("/")

        def say(runs: Any) -> tuple[int, dict[str, Any]]:
            body = {"action": "lost", "agent": socket.gethostname(), "runs": runs}
            return hub.post(f"/{project}/sweeps/{name}/agents.json", body)

        status, refusal = say(run)
        assert (status, refusal["error"]) == (400, f"runs: got {run!r}; send a list of the runs' names")
        assert say([run]) == (200, {"lost": [], "heard": [run]}), "it was heard a moment ago"
        wait_for(lambda: say([run])[1]["lost"] == [run], 60)
        assert fleet.run(run)["state"] == "crashed"


def _tree(pid: int) -> list[int]:
    return [pid, *(each for child in children(pid) for each in _tree(child))]
