"""Sweeps driven by the unmodified wandb client: its CLI, its agents, and what becomes of each kind of run."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support_hub import HubProcess
from support_wait import wait_for

# What a run does is its parameter `kind`. A second attempt is told by the file that the first one left.
TRAIN = """
import os, pathlib, signal, sys, time
import yaml

given = yaml.safe_load(pathlib.Path(os.environ["WANDB_SWEEP_PARAM_PATH"]).read_text())
kind = given["kind"]["value"]
mark = pathlib.Path(f"attempt-{os.environ['WANDB_RUN_ID']}")
first = not mark.exists()
mark.touch()
if kind == "unstarted" and first:
    sys.exit(0)
import wandb
run = wandb.init(resume="allow")
run.log({"loss": 1.0 if kind == "good" else 2.0})
if kind == "preempted" and first:
    run.mark_preempting()
    run.finish(exit_code=1)
    sys.exit(1)
if kind == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
while kind == "endless":
    time.sleep(0.1)
"""

SWEEP = """
program: train.py
method: grid
metric: {name: loss, goal: minimize}
parameters:
  kind: {values: [%s]}
"""


@dataclass(frozen=True)
class Lab:
    """A hub with sweep files and the means to drive them from outside."""

    hub: HubProcess
    sweeps: dict[str, str]

    def cli(self, *argv: str, check: bool = True) -> str:
        return self.hub.run(sys.executable, "-m", "wandb", *argv, check=check)

    def path(self, name: str) -> str:
        return f"local/lab/{self.sweeps[name]}"

    def agent(self, name: str) -> subprocess.Popen[str]:
        return self.hub.popen(sys.executable, "-m", "wandb", "agent", self.path(name))

    def sweep(self, name: str) -> dict[str, Any]:
        text = """query S($name: String!) { project(name: "lab") { sweep(sweepName: $name) {
            id state bestLoss runCount runs { edges { node { name state config exitcode summaryMetrics
            historyLineCount } } } agents { edges { node { id name host state totalRuns } } } } } }"""
        return dict(self.hub.query(text, name=self.sweeps[name])["project"]["sweep"])

    def runs(self, name: str) -> dict[str, dict[str, Any]]:
        nodes = [edge["node"] for edge in self.sweep(name)["runs"]["edges"]]
        return {json.loads(node["config"])["kind"]["value"]: node for node in nodes}

    def is_in(self, name: str, state: str) -> Callable[[], bool]:
        return lambda: self.sweep(name)["state"] == state


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A hub, and the sweeps `kinds` and `endless`, made by the client's own CLI."""
    folder: Path = tmp_path_factory.mktemp("sweeps")
    with HubProcess(folder, {"stop_grace": 1.0}) as hub:
        (folder / "train.py").write_text(TRAIN)
        found = Lab(hub, {})
        for name, kinds in (("kinds", "good, preempted, killed, unstarted"), ("endless", "endless")):
            (folder / f"{name}.yaml").write_text(SWEEP % kinds)
            output = found.cli("sweep", "--project", "lab", "--name", f"the {name}", f"{name}.yaml")
            found.sweeps[name] = output.split("wandb agent local/lab/")[1].split()[0]
        yield found


@pytest.fixture(scope="module")
def driven(lab: Lab) -> Lab:
    """Both sweeps to their end: two agents on `kinds`, one on `endless`, which is paused, resumed and cancelled."""
    agents = [lab.agent("kinds"), lab.agent("kinds"), lab.agent("endless")]
    wait_for(lambda: lab.runs("endless").get("endless", {}).get("state") == "running", 60)
    for option, state in (("--pause", "PAUSED"), ("--resume", "RUNNING"), ("--cancel", "CANCELED")):
        lab.cli("sweep", option, lab.path("endless"))
        assert lab.sweep("endless")["state"] == state
    for agent in agents:
        output, _ = agent.communicate(timeout=120)
        assert agent.returncode == 0, output
    return lab


def test_new_sweeps_wait_for_agents(lab: Lab) -> None:
    """A sweep that nobody works on is pending, and the client may stop it; stopping twice is refused by the client."""
    (lab.hub.folder / "idle.yaml").write_text(SWEEP % "good")
    output = lab.cli("sweep", "--project", "lab", "idle.yaml")
    lab.sweeps["idle"] = output.split("wandb agent local/lab/")[1].split()[0]
    assert f"{lab.hub.url}/local/lab/sweeps/{lab.sweeps['idle']}" in output
    assert lab.sweep("idle")["state"] == "PENDING"
    lab.cli("sweep", "--stop", lab.path("idle"))
    assert lab.sweep("idle")["state"] == "FINISHED"
    assert "already finished" in lab.cli("sweep", "--stop", lab.path("idle"), check=False)


def test_a_sweep_that_cannot_be_searched_is_refused(lab: Lab) -> None:
    """The client shows why the server refuses a sweep, and none is made."""
    (lab.hub.folder / "bad.yaml").write_text("method: random\nparameters: {a: {distribution: wild, min: 0, max: 1}}")
    output = lab.cli("sweep", "--project", "refused", "bad.yaml", check=False)
    assert "wild" in output
    assert lab.hub.query('{project(name: "refused") {totalSweeps}}')["project"] is None


def test_two_agents_work_through_a_grid(driven: Lab) -> None:
    """Each point is tried once as a run; retries keep the run's id; the sweep ends and sends its agents home."""
    sweep, runs = driven.sweep("kinds"), driven.runs("kinds")
    assert (sweep["state"], sweep["runCount"], sweep["bestLoss"]) == ("FINISHED", 4, 1.0)
    assert {kind: run["state"] for kind, run in runs.items()} == {
        "good": "finished",
        "preempted": "finished",
        "killed": "crashed",
        "unstarted": "finished",
    }
    agents = [edge["node"] for edge in sweep["agents"]["edges"]]
    assert [agent["state"] for agent in agents] == ["FINISHED"] * 2


def test_a_preempted_run_continues_its_history(driven: Lab) -> None:
    """The second attempt writes after the first one's rows."""
    assert driven.runs("kinds")["preempted"]["historyLineCount"] == 2
    assert driven.runs("kinds")["unstarted"]["historyLineCount"] == 1


def test_cancelling_ends_the_run_and_its_agent(driven: Lab) -> None:
    """A cancelled sweep's run is told to stop, and its agent leaves."""
    assert driven.sweep("endless")["state"] == "CANCELED"
    assert driven.runs("endless")["endless"]["state"] == "killed"


def test_sweeps_read_back_through_the_api(driven: Lab) -> None:
    """wandb.Api gives a sweep's name, state, runs, best run and agents."""
    code = f"""
import json, wandb
sweep = wandb.Api().sweep("{driven.path("kinds")}")
best = sweep.best_run()
print(json.dumps({{
    "name": sweep.name, "state": sweep.state, "runs": sorted(run.config["kind"] for run in sweep.runs),
    "best": best.config["kind"], "of": best.sweep_name, "agents": len(sweep.agents()),
    "listed": sorted(one.name for one in wandb.Api().project("lab", "local").sweeps()),
    "ran": sum(len(list(sweep.agent(agent.id).runs())) for agent in sweep.agents()),
}}))
"""
    told = json.loads(driven.hub.python(code).splitlines()[-1])
    assert told["name"] == "the kinds"
    assert told["state"] == "FINISHED"
    assert told["runs"] == ["good", "killed", "preempted", "unstarted"]
    assert (told["best"], told["of"]) == ("good", driven.sweeps["kinds"])
    assert told["agents"] == 2
    assert told["ran"] == 4
    assert {"the kinds", "the endless"} <= set(told["listed"])


def test_unknown_agents_get_404(lab: Lab) -> None:
    """404 on a heartbeat means to the client that the sweep was deleted, and nothing else does."""
    beat = 'mutation {agentHeartbeat(input: {id: "%s", runState: "{}"}) {commands}}'
    assert lab.hub.post("/graphql", {"query": beat % "bm90aGluZw=="})[0] == 404
    made = lab.hub.query(
        'mutation($c: String!) {upsertSweep(input: {projectName: "gone", config: $c}) {sweep {id name}}}',
        c=SWEEP % "good",
    )["upsertSweep"]["sweep"]
    agent = lab.hub.query(
        'mutation($s: String!) {createAgent(input: {host: "h", projectName: "gone", sweep: $s}) {agent {id}}}',
        s=made["name"],
    )["createAgent"]["agent"]["id"]
    assert lab.hub.post("/graphql", {"query": beat % agent})[0] == 200
    assert lab.hub.admin(f"/admin/sweeps/local/gone/{made['name']}", {}, method="DELETE")[0] == 200
    assert lab.hub.post("/graphql", {"query": beat % agent})[0] == 404
