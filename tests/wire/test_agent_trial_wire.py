"""Trials under the real `wandb agent` against a real hub: what the server has at the end, and stops on the way."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.hub import HubProcess
from support.paths import TESTS
from support.wait import wait_for

SWEEP = """
program: prunefleet
command: ["${env}", "%s", "-m", "prunefleet.agent", trial]
method: grid
metric: {name: score, goal: maximize}
parameters:
  task: {value: "brief_task:TinyTask"}
  objective: {parameters: {kind: {value: fastest}, max_drop: {value: 0.05}}}
  recipe: {parameters: {epochs: {value: 0.5}, lr: {values: [%s]}}}
  ratio: {parameters: {conv1: {value: 0.5}}}
"""
LATENCY_FIRST = """
program: prunefleet
command: ["${env}", "%s", "-m", "prunefleet.agent", trial]
method: grid
run_cap: 2
metric: {name: score, goal: maximize}
parameters:
  task: {value: "brief_task:TinyTask"}
  objective: {parameters: {kind: {value: fastest}, max_drop: {value: 0.2}}}
  recipe: {parameters: {epochs: {value: 1}}}
  ratio: {parameters: {conv2: {values: [0.75, 0.0, 0.5]}}}
"""
EARLY = """
program: prunefleet
command: ["${env}", "%s", "-m", "prunefleet.agent", trial]
method: grid
early_terminate: {type: hyperband, min_iter: 2, eta: 2}
metric: {name: score, goal: maximize}
parameters:
  task: {value: "brief_task:TinyTask"}
  objective: {parameters: {kind: {value: fastest}, max_drop: {value: 0.2}}}
  recipe: {parameters: {epochs: {value: 1}, seed: {value: 5}, skip: {value: false}}}
  ratio: {parameters: {conv2: {values: [0.75, 0.0]}}}
"""


class Lab:
    """A hub and an agent's environment in which the tiny task is found."""

    def __init__(self, hub: HubProcess) -> None:
        self.hub = hub
        self.env = {
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
            "PRUNEFLEET_CACHE": str(hub.folder / "pruned"),
            "OMP_NUM_THREADS": "1",
            "WANDB_PROJECT": "lab",
            "TINY_SIDE": "32",
            "TMPDIR": str(hub.folder / "t"),
        }
        (hub.folder / "t").mkdir()

    def sweep(self, *rates: float) -> str:
        """A new sweep with one trial per learning rate; its path."""
        return self.make(SWEEP % (sys.executable, ", ".join(f"{rate:.1e}" for rate in rates)))

    def make(self, text: str) -> str:
        """A new sweep of that file; its path."""
        path = self.hub.folder / "sweep.yaml"
        path.write_text(text)
        output = self.hub.run(sys.executable, "-m", "wandb", "sweep", "--project", "lab", str(path))
        return "local/lab/" + output.split("wandb agent local/lab/")[1].split()[0]

    def agent(self, sweep: str, **env: str) -> Any:
        return self.hub.popen(sys.executable, "-m", "wandb", "agent", sweep, **self.env, **env)

    def runs(self, sweep: str) -> list[dict[str, Any]]:
        text = """query S($name: String!) { project(name: "lab") { sweep(sweepName: $name) { runs { edges { node {
            id name state config summaryMetrics historyLineCount } } } } } }"""
        found = self.hub.query(text, name=sweep.rsplit("/", 1)[1])["project"]["sweep"]["runs"]["edges"]
        return [self._plain(edge["node"]) for edge in found]

    @staticmethod
    def _plain(node: dict[str, Any]) -> dict[str, Any]:
        config = {key: entry["value"] for key, entry in json.loads(node["config"]).items() if key != "_wandb"}
        return node | {"config": config, "summary": json.loads(node["summaryMetrics"] or "{}")}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with HubProcess(tmp_path_factory.mktemp("trials"), {"stop_grace": 60.0}) as hub:
        yield Lab(hub)


def test_trials_without_a_plan_are_scored_or_diverge(lab: Lab) -> None:
    """The first trial of a sweep without a plan trains the dense network; answers end well, in the documented words."""
    sweep = lab.sweep(0.05, 1e30)
    agent = lab.agent(sweep)
    output, _ = agent.communicate(timeout=300)
    assert agent.returncode == 0, output
    good, bad = sorted(lab.runs(sweep), key=lambda run: run["config"]["recipe"]["lr"])
    assert (good["state"], bad["state"]) == ("finished", "finished")
    assert good["summary"]["outcome"] == "scored" and good["summary"]["score"] > 0
    assert bad["summary"]["outcome"] == bad["summary"]["failure_kind"] == "diverged"
    assert good["config"]["kept"] == {"conv1": 32, "conv2": 64, "conv3": 64}
    assert good["config"]["baseline_hash"] == bad["config"]["baseline_hash"]
    assert {"val_top1", "latency_ratio", "seconds_train", "seconds_imports"} <= set(good["summary"])
    names = _artifacts(lab)
    assert f"candidate-{good['name']}" in names and f"candidate-{bad['name']}" not in names
    assert len([name for name in names if name.startswith("dense-")]) == 1


def test_a_trial_that_cannot_beat_the_best_ends_as_skipped(lab: Lab) -> None:
    """The second trial hears of the first one's score, is slower, and ends untrained; it counts towards run_cap."""
    sweep = lab.make(LATENCY_FIRST % sys.executable)
    agent = lab.agent(sweep)
    output, _ = agent.communicate(timeout=300)
    assert agent.returncode == 0, output
    first, second = sorted(lab.runs(sweep), key=lambda run: -run["config"]["ratio"]["conv2"])
    assert first["summary"]["outcome"] == "scored" and first["summary"]["score"] > 0.1
    told = second["summary"]
    assert (second["state"], told["outcome"]) == ("finished", "skipped"), (first["summary"], told)
    assert told["incumbent"] == first["summary"]["score"] > told["score_bound"]
    assert told["latency_ratio"] > 0.9 and not {"score", "metric_drop", "seconds_train"} & set(told)
    assert f"candidate-{second['name']}" not in _artifacts(lab)
    text = """query S($name: String!) { project(name: "lab") { sweep(sweepName: $name) { state } } }"""
    state = lab.hub.query(text, name=sweep.rsplit("/", 1)[1])["project"]["sweep"]["state"]
    assert state == "FINISHED" and len(lab.runs(sweep)) == 2


@pytest.mark.slow
def test_a_rung_reaches_early_termination(lab: Lab) -> None:
    """The hub judges a trial by the scores of its rungs: one that is slower is stopped before its end."""
    sweep = lab.make(EARLY % sys.executable)
    agent = lab.agent(sweep, TINY_SECONDS="25")
    output, _ = agent.communicate(timeout=240)
    assert agent.returncode == 0, output
    good, bad = sorted(lab.runs(sweep), key=lambda run: -run["config"]["ratio"]["conv2"])
    assert good["summary"].get("outcome") == "scored", (good, output)
    assert bad["summary"]["failure_kind"] == "interrupted" and "server asked" in bad["summary"]["failure_message"]
    assert bad["summary"].get("score") is None and "outcome" not in bad["summary"]


def test_a_terminated_trial_comes_back_and_a_stopped_one_ends(lab: Lab) -> None:
    """SIGTERM hands the run back, and it is resumed under its id; the server's stop then ends it with exit code 0."""
    sweep = lab.sweep(0.05)
    lab.agent(sweep, TINY_SECONDS="100", PRUNEFLEET_CACHE_MB="0")  # it must train
    first = wait_for(lambda: _training(lab, sweep), 150)
    os.kill(_trial_of(first["name"]), signal.SIGTERM)
    wait_for(lambda: _trial_of(first["name"], 0) == 0, 90)
    again = wait_for(lambda: _trial_of(first["name"], 0) and _training(lab, sweep), 150)
    assert again["name"] == first["name"] and len(lab.runs(sweep)) == 1
    assert again["historyLineCount"] >= first["historyLineCount"]
    lab.hub.query("mutation S($id: ID!) { stopRun(input: {id: $id}) { success } }", id=again["id"])
    wait_for(lambda: _trial_of(first["name"], 0) == 0, 90)
    ended = wait_for(lambda: [run for run in lab.runs(sweep) if run["state"] not in ("running", "pending")], 60)[0]
    assert ended["summary"]["failure_kind"] == "interrupted" and ended["summary"].get("score") is None
    assert "server asked" in ended["summary"]["failure_message"]


def _training(lab: Lab, sweep: str) -> dict[str, Any] | None:
    """The sweep's one run, once it has logged a row and while it is running."""
    return next((run for run in lab.runs(sweep) if run["state"] == "running" and run["historyLineCount"] > 0), None)


def _trial_of(run: str, missing: int | None = None) -> int:
    """Process id of the trial that carries the run."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        if b"agent\0trial" in line and f"WANDB_RUN_ID={run}\0".encode() in environment:
            return int(folder.name)
    assert missing is not None, f"no process carries run {run}"
    return missing


def _artifacts(lab: Lab) -> list[str]:
    code = (
        "import wandb; p = wandb.Api(); print([c.name for t in p.artifact_types('local/lab') for c in t.collections()])"
    )
    return list(eval(lab.hub.python(code).strip().splitlines()[-1]))
