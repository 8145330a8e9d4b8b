"""Sweeps driven by the unmodified wandb client: its CLI, its agents, and what becomes of each kind of run.

With the older client in `make test-all` alone: one of its agents is in the sample, in test_wire_agents.py.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.clients import Client
from support.hub import HubProcess
from support.wait import wait_for

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
while kind == "endless" or (kind == "waiting" and not pathlib.Path(f"go-{os.environ['WANDB_RUN_ID']}").exists()):
    time.sleep(0.1)
if kind == "waiting":
    run.log({"loss": 0.0})
"""

SWEEP = """
program: train.py
method: grid
metric: {name: loss, goal: minimize}
parameters:
  kind: {values: [%s]}
"""


# Its metric is aggregated, {"max": x}; a point above 8 goes on until it is stopped.
FUNCTION = """
import sys, time, wandb

def train():
    with wandb.init(settings=wandb.Settings(console="off")) as run:
        run.define_metric("loss", summary="max")
        for loss in (run.config["x"], 0.0):
            run.log({"loss": loss})
        while run.config["x"] > 8:
            time.sleep(0.1)

wandb.agent(sys.argv[1], function=train)
"""

FUNCTION_SWEEP = """
method: grid
metric: {name: loss, goal: maximize}
parameters:
  x: {values: [1.0, 9.0, 3.0, 4.0]}
"""


@dataclass(frozen=True)
class Lab:
    """A hub with sweep files and the means to drive them from outside."""

    hub: HubProcess
    sweeps: dict[str, str]

    def cli(self, *argv: str, check: bool = True) -> str:
        return self.hub.wandb(*argv, check=check)

    def make(self, name: str, text: str) -> str:
        """A sweep made by `wandb sweep`; what that printed."""
        (self.hub.folder / f"{name}.yaml").write_text(text)
        output = self.cli("sweep", "--project", "lab", "--name", f"the {name}", f"{name}.yaml")
        self.sweeps[name] = output.split("wandb agent local/lab/")[1].split()[0]
        return output

    def add(self, name: str, text: str) -> None:
        """A sweep made by one request: `wandb sweep` takes seconds to start."""
        asked = 'mutation($c: String!) {upsertSweep(input: {projectName: "lab", config: $c}) {sweep {name}}}'
        self.sweeps[name] = self.hub.query(asked, c=f"name: the {name}\n{text}")["upsertSweep"]["sweep"]["name"]

    def path(self, name: str) -> str:
        return f"local/lab/{self.sweeps[name]}"

    def agent(self, name: str) -> subprocess.Popen[str]:
        return self.hub.agent(self.path(name))

    def sweep(self, name: str) -> dict[str, Any]:
        text = """query S($name: String!) { project(name: "lab") { sweep(sweepName: $name) {
            id state bestLoss runCount runs { edges { node { id name state config exitcode summaryMetrics
            historyLineCount } } } agents { edges { node { id name host state totalRuns } } } } } }"""
        return dict(self.hub.query(text, name=self.sweeps[name])["project"]["sweep"])

    def nodes(self, name: str) -> list[dict[str, Any]]:
        return [edge["node"] for edge in self.sweep(name)["runs"]["edges"]]

    def runs(self, name: str) -> dict[str, dict[str, Any]]:
        return {json.loads(node["config"])["kind"]["value"]: node for node in self.nodes(name)}

    def point(self, x: float) -> dict[str, Any] | None:
        """The run of `function` at that point, once it has logged."""
        found = [n for n in self.nodes("function") if json.loads(n["config"])["x"]["value"] == x]
        return next((node for node in found if node["historyLineCount"]), None)

    def waiting(self) -> dict[str, Any] | None:
        """The run of `waiting`, also when its sweep is deleted, once it has logged."""
        text = """query R($filters: JSONString) { project(name: "lab") { runs(filters: $filters) { edges { node {
            id name state sweepName historyLineCount } } } } }"""
        asked = json.dumps({"config.kind": "waiting"})
        edges = self.hub.query(text, filters=asked)["project"]["runs"]["edges"]
        return next((edge["node"] for edge in edges if edge["node"]["historyLineCount"]), None)

    def beats(self, run: str) -> int:
        """How many heartbeats have listed that run."""
        lines = (self.hub.folder / "hub.log").read_text().splitlines()
        return sum("mutation Heartbeat" in line and run in line.partition(" -> ")[0] for line in lines)

    def stop(self, run: dict[str, Any]) -> None:
        """Ask a run to stop."""
        self.hub.query("mutation S($id: ID!) {stopRun(input: {id: $id}) {success clientMutationId}}", id=run["id"])

    def is_in(self, name: str, state: str) -> Callable[[], bool]:
        return lambda: self.sweep(name)["state"] == state


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, wandb_client: Client) -> Iterator[Lab]:
    """A hub, a sweep made by the client's own CLI, and three more."""
    folder: Path = tmp_path_factory.mktemp("sweeps")
    patch = pytest.MonkeyPatch()
    patch.setenv("PRUNEFLEET_LOG_OPERATIONS", "1")  # its log tells when an agent was heard
    with HubProcess(folder, {"stop_grace": 1.0}, client=wandb_client) as hub:
        patch.undo()
        (folder / "train.py").write_text(TRAIN)
        found = Lab(hub, {})
        found.make("kinds", SWEEP % "good, preempted, killed, unstarted")
        for name in ("endless", "waiting"):
            found.add(name, SWEEP % name)
        found.add("function", FUNCTION_SWEEP)
        yield found


@pytest.fixture(scope="module")
def driven(lab: Lab) -> Lab:
    """All sweeps to their end, at once, for agents wait most of the time.

    Two agents work on `kinds`, two of the other kind on `function`, where one run is stopped; `endless` is paused,
    resumed and cancelled; `waiting` is deleted while its agent is busy, and its run goes on after that.
    """
    busy, agents = lab.agent("waiting"), [lab.agent(name) for name in ("kinds", "kinds", "endless")]
    agents += [lab.hub.popen(str(lab.hub.client.python), "-c", FUNCTION, lab.path("function")) for _ in range(2)]
    wait_for(lambda: lab.runs("endless").get("endless", {}).get("state") == "running", 90)
    for option, state in (("--pause", "PAUSED"), ("--resume", "RUNNING"), ("--cancel", "CANCELED")):
        lab.cli("sweep", option, lab.path("endless"))
        assert lab.sweep("endless")["state"] == state
    lab.stop(wait_for(lambda: lab.point(9.0), 90))
    waiting = wait_for(lambda: lab.waiting(), 90)["name"]
    assert lab.hub.admin(f"/admin/sweeps/{lab.path('waiting')}", {}, method="DELETE")[0] == 200
    heard = lab.beats(waiting) + 2  # one may have been under way
    wait_for(lambda: lab.beats(waiting) >= heard, 60)
    (lab.hub.folder / f"go-{waiting}").touch()
    for agent in (busy, *agents):
        output, _ = agent.communicate(timeout=120)
        assert agent.returncode == 0 or agent is busy, output  # older clients call a deleted sweep an error
    return lab


def test_new_sweeps_wait_for_agents(lab: Lab) -> None:
    """A sweep that nobody works on is pending, and the client may stop it; stopping twice is refused by the client."""
    output = lab.make("idle", SWEEP % "good")
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


def test_two_function_agents_share_a_sweep(driven: Lab) -> None:
    """`wandb.agent(function=…)` in two processes tries each point once; a stop ends one point, not its agent."""
    sweep, nodes = driven.sweep("function"), driven.nodes("function")
    states = {json.loads(node["config"])["x"]["value"]: node["state"] for node in nodes}
    assert states == {1.0: "finished", 3.0: "finished", 4.0: "finished", 9.0: "killed"}
    assert (len(nodes), sweep["state"], sweep["bestLoss"]) == (4, "FINISHED", 9.0)
    assert len(sweep["agents"]["edges"]) == 2


def test_a_busy_agent_of_a_deleted_sweep_lets_its_run_finish(driven: Lab) -> None:
    """When its sweep is deleted, an agent's run goes on to its end and keeps what it logs; then the agent ends."""
    run = driven.waiting()
    assert run is not None
    assert (run["state"], run["historyLineCount"], run["sweepName"]) == ("finished", 2, None)


def test_sweeps_read_back_through_the_api(driven: Lab) -> None:
    """wandb.Api gives a sweep's name, state, runs, best run and agents."""
    code = f"""
import json, wandb
sweep = wandb.Api().sweep("{driven.path("kinds")}")
best = sweep.best_run()
for run in [best, *sweep.runs]:
    run.load_full_data()
top = wandb.Api().sweep("{driven.path("function")}").best_run()
top.load_full_data()
print(json.dumps({{
    "name": sweep.name, "state": sweep.state, "runs": sorted(run.config["kind"] for run in sweep.runs),
    "best": best.config["kind"], "top": top.config["x"], "of": best.sweep_name,
    "listed": sorted(one.name for one in wandb.Api().project("lab", "local").sweeps()),
    "agents": [len(list(sweep.agent(agent.id).runs())) for agent in sweep.agents()] if hasattr(sweep, "agents") else [],
}}))
"""
    told = json.loads(driven.hub.python(code).splitlines()[-1])
    assert told["name"] == "the kinds"
    assert told["state"] == "FINISHED"
    assert told["runs"] == ["good", "killed", "preempted", "unstarted"]
    assert (told["best"], told["of"]) == ("good", driven.sweeps["kinds"])
    text = 'query S($f: JSONString) {project(name: "lab") {sweeps(filters: $f) {edges {node {name}}}}}'
    asked = json.dumps({"state": "CANCELED", "method": "grid", "displayName": {"$regex": "^the"}})
    found = driven.hub.query(text, f=asked)["project"]["sweeps"]["edges"]
    assert [edge["node"]["name"] for edge in found] == [driven.sweeps["endless"]]
    assert told["top"] == 9.0
    assert not told["agents"] or (len(told["agents"]), sum(told["agents"])) == (2, 4)  # older clients list none
    assert {"the kinds", "the endless"} <= set(told["listed"])


def test_unknown_agents_get_404(lab: Lab) -> None:
    """404 on a heartbeat means to the client that the sweep was deleted; one that lists a run is let be until then."""
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
    busy = (beat % agent).replace("{}", '{\\"run1\\": true}')
    assert lab.hub.post("/graphql", {"query": busy}) == (200, {"data": {"agentHeartbeat": {"commands": "[]"}}})
    assert lab.hub.post("/graphql", {"query": beat % agent})[0] == 404
