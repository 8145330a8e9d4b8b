"""Who decides what runs and what stops, with the unmodified client: early termination, local controllers, queues."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import pytest

from support.hub import HubProcess
from support.wait import wait_for

# A good run logs five small losses and ends; a bad one goes on for ever unless it is stopped. It sleeps for most of its
# time: the client interrupts a run once, and where that falls into its own code it may be lost.
TRAIN = """
import itertools, time
import wandb

def train():
    with wandb.init() as run:
        good = run.config["x"] == 1
        for step in range(5) if good else itertools.count():
            run.log({"loss": float(run.config["x"])})
            time.sleep(1)

if __name__ == "__main__":
    train()
"""
EARLY = """
program: train.py
method: grid
metric: {name: loss, goal: minimize}
parameters: {x: {values: [1, 2]}}
early_terminate: {type: hyperband, min_iter: 3}
"""
QUICK = """
program: quick.py
method: %s
metric: {name: loss, goal: minimize}
parameters: {x: {values: [1, 2]}}
"""
TRAIN_QUICK = "import wandb; run = wandb.init(); run.log({'loss': float(run.config['x'])}); run.finish()"
FUNCTION = "import train, wandb; wandb.agent('%s', function=train.train, entity='local', project='lab', count=2)"
SOON = {"WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1"}  # seconds, of 15
CONTROL = "import wandb; wandb.controller('%s', entity='local', project='lab').run(print_actions=True)"


@dataclass
class Lab:
    """A hub, its sweeps by name, and what the processes that end by themselves have printed."""

    hub: HubProcess
    sweeps: dict[str, str] = field(default_factory=dict)
    printed: dict[str, str] = field(default_factory=dict)

    def make(self, name: str, text: str, **more: Any) -> None:
        mutation = "mutation M($input: UpsertSweepInput!) {upsertSweep(input: $input) {sweep {name}}}"
        made = self.hub.query(mutation, input={"projectName": "lab", "config": text, **more})
        self.sweeps[name] = made["upsertSweep"]["sweep"]["name"]

    def agent(self, name: str) -> None:
        self.hub.popen(sys.executable, "-m", "wandb", "agent", f"local/lab/{self.sweeps[name]}", **SOON)

    def sweep(self, name: str) -> dict[str, Any]:
        text = """query S($name: String!) { project(name: "lab") { sweep(sweepName: $name) {
            state runCount scheduler priorRuns { edges { node { name } } }
            runs { edges { node { name state config exitcode historyLineCount shouldStop } } } } } }"""
        return dict(self.hub.query(text, name=self.sweeps[name])["project"]["sweep"])

    def runs(self, name: str) -> dict[int, dict[str, Any]]:
        nodes = [edge["node"] for edge in self.sweep(name)["runs"]["edges"]]
        return {json.loads(node["config"])["x"]["value"]: node for node in nodes}

    def ended(self, name: str) -> bool:
        states = [run["state"] for run in self.runs(name).values()]
        return self.sweep(name)["state"] == "FINISHED" and not {"pending", "running"} & set(states)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A hub where sweeps of each kind are driven to their end, side by side because the client often waits."""
    with HubProcess(tmp_path_factory.mktemp("search"), {"stop_grace": 120.0}) as hub:
        (hub.folder / "train.py").write_text(TRAIN)
        (hub.folder / "quick.py").write_text(TRAIN_QUICK)
        lab = Lab(hub)
        lab.make("early", EARLY)
        for name in ("early", "early"):
            lab.agent(name)
        others = {}
        if find_spec("sweeps"):
            lab.make("local", QUICK % "grid" + "controller: {type: local}")
            others["local"] = hub.popen(sys.executable, "-c", CONTROL % lab.sweeps["local"])
            lab.agent("local")
        if find_spec("optuna"):
            lab.make("scheduled", QUICK % "custom" + "scheduler: {engine: optuna}\nrun_cap: 2")
            path = f"local/lab/{lab.sweeps['scheduled']}"
            argv = ("sweep-scheduler", "--batch-size", "2", "--poll-interval", "1", path)
            others["scheduled"] = hub.popen(sys.executable, "-m", "wandb", *argv)
            lab.agent("scheduled")
        for name, process in others.items():
            lab.printed[name] = process.communicate(timeout=120)[0]
            assert process.returncode == 0, lab.printed[name]
        yield lab


def test_a_bad_run_is_stopped_and_a_good_one_is_not(lab: Lab) -> None:
    """The client is told through file_stream, interrupts the script, and sends all it has logged; the sweep ends."""
    wait_for(lambda: lab.ended("early"), 400, every=0.5)
    good, bad = lab.runs("early")[1], lab.runs("early")[2]
    assert (good["state"], good["exitcode"], good["historyLineCount"]) == ("finished", 0, 5)
    assert (bad["state"], bad["shouldStop"]) == ("killed", True)
    assert bad["exitcode"] == 1, "it ended by itself, by the interrupt, and was not killed"
    assert bad["historyLineCount"] >= 3


# `make test` has a program that is stopped, above, and a function's agent in tests/wire/test_wire_agents.py.
@pytest.mark.slow
def test_a_function_is_stopped_by_its_agent(lab: Lab) -> None:
    """`wandb.agent(function=…)` does not mind file_stream: the agent's `stop` ends the call, and the rows are kept."""
    lab.make("function", EARLY)
    for _ in range(2):
        lab.hub.popen(sys.executable, "-c", FUNCTION % lab.sweeps["function"], **SOON)
    wait_for(lambda: lab.ended("function"), 240, every=0.5)
    good, bad = lab.runs("function")[1], lab.runs("function")[2]
    assert (good["state"], good["historyLineCount"]) == ("finished", 5)
    assert (bad["state"], bad["shouldStop"]) == ("killed", True)
    assert bad["historyLineCount"] >= 3


@pytest.mark.skipif(not find_spec("sweeps"), reason="needs W&B's package sweeps, as the extra dev installs it")
def test_a_local_controller_drives_its_sweep(lab: Lab) -> None:
    """wandb.controller schedules each point once, sees the runs, and ends when its search is exhausted."""
    sweep = lab.sweep("local")
    assert (sweep["state"], sweep["runCount"]) == ("FINISHED", 2)
    assert {x: run["state"] for x, run in lab.runs("local").items()} == {1: "finished", 2: "finished"}
    assert "Schedule (x=2)" in lab.printed["local"]
    assert len(json.loads(sweep["scheduler"])["scheduled"]) == 2


@pytest.mark.skipif(not find_spec("optuna"), reason="needs optuna, as the extra dev installs it")
def test_a_scheduler_drives_its_sweep(lab: Lab) -> None:
    """`wandb sweep-scheduler` enqueues what optuna chooses up to run_cap and ends well; its log is a run of its own."""
    wait_for(lambda: lab.ended("scheduled"), 60)
    assert lab.sweep("scheduled")["runCount"] == 2
    assert "Enqueued run" in lab.printed["scheduled"]
    assert "the sweep finished" in lab.printed["scheduled"]
    names = lab.hub.query('{project(name: "lab") {runs(first: 100) {edges {node {name sweepName}}}}}')
    found = {edge["node"]["name"]: edge["node"]["sweepName"] for edge in names["project"]["runs"]["edges"]}
    assert found[f"controller-{lab.sweeps['scheduled']}"] is None


def test_runs_are_enqueued_through_the_api(lab: Lab) -> None:
    """Sweep.enqueue_run answers the run's id, which is there as pending; a full sweep refuses and says why."""
    lab.make("queue", "program: quick.py\nmethod: custom\nrun_cap: 1\n")
    code = f"""
import wandb
sweep = wandb.Api().sweep("local/lab/{lab.sweeps["queue"]}")
print(sweep.enqueue_run({{"x": {{"value": 7}}}}, display_name="measure"))
sweep.enqueue_run({{"x": {{"value": 8}}}})
"""
    output = lab.hub.python(code, check=False)
    run = lab.runs("queue")[7]
    assert run["state"] == "pending"
    assert run["name"] in output
    assert "has its 1 runs; raise it" in output


def test_prior_runs_are_named_when_a_sweep_is_made(lab: Lab) -> None:
    """`wandb sweep --prior_run` is taken for a run of the project and refused for any other."""
    known = lab.runs("early")[1]["name"]
    (lab.hub.folder / "prior.yaml").write_text(EARLY)
    output = lab.hub.run(sys.executable, "-m", "wandb", "sweep", "-p", "lab", "--prior_run", known, "prior.yaml")
    lab.sweeps["prior"] = output.split("wandb agent local/lab/")[1].split()[0]
    sweep = lab.sweep("prior")
    assert [edge["node"]["name"] for edge in sweep["priorRuns"]["edges"]] == [known]
    assert sweep["runCount"] == 0
    with pytest.raises(AssertionError, match=r"400.*prior_run: got \['nowhere'\], no such run"):
        lab.make("bad", EARLY, priorRunsFilters='{"$or": [{"name": "nowhere"}]}')
