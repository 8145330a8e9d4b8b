"""The hub killed with -9 in mid-sweep, under two real agents, and started again on the same port."""

import json
import sys
from pathlib import Path
from typing import Any

from support.hub import HubProcess
from support.wait import wait_for

ROWS = 8
RUNS = 3
TRAIN = f"""
import time, wandb
run = wandb.init(resume="allow")
for step in range({ROWS}):
    run.log({{"loss": run.config["x"] + step}})
    time.sleep(0.1)
print("trial ends")
run.summary["score"] = run.config["x"]
run.finish()
"""
# Sweeps of `program: prunefleet` take a vanished process for its host's failure, as trials of ours want it.
SWEEP = f"""
program: prunefleet
command: ["${{env}}", {json.dumps(sys.executable)}, train.py]
method: random
metric: {{name: loss, goal: minimize}}
run_cap: {RUNS}
parameters:
  x: {{min: 0.0, max: 1.0}}
"""
READ = """query S($name: String!) { project(name: "lab") { sweep(sweepName: $name) { state runs { edges { node {
    name state config summaryMetrics historyLineCount history(samples: 500) } } } } } }"""


def sweep_of(hub: HubProcess, name: str) -> dict[str, Any]:
    return dict(hub.query(READ, name=name)["project"]["sweep"])


def finished(sweep: dict[str, Any]) -> dict[str, str]:
    """Every finished run by name, with all that is stored of it."""
    nodes = [edge["node"] for edge in sweep["runs"]["edges"]]
    return {node["name"]: json.dumps(node, sort_keys=True) for node in nodes if node["state"] == "finished"}


def test_a_sweep_survives_its_hub(tmp_path: Path) -> None:
    """After two kills: the agents carry on, what was finished is untouched, and the counts are exact."""
    with HubProcess(tmp_path) as hub:
        (tmp_path / "train.py").write_text(TRAIN)
        (tmp_path / "sweep.yaml").write_text(SWEEP)
        told = hub.run(sys.executable, "-m", "wandb", "sweep", "--project", "lab", "sweep.yaml")
        path = told.split("wandb agent ")[1].split()[0]
        name = path.rsplit("/", 1)[1]
        agents = [hub.popen(sys.executable, "-m", "wandb", "agent", path) for _ in range(2)]
        for count in (1, 2):
            wait_for(lambda: len(finished(sweep_of(hub, name))) >= count, 90)  # noqa: B023 - called at once
            before = finished(sweep_of(hub, name))
            hub.kill9()
            hub.restart()
            after = finished(sweep_of(hub, name))
            assert {run: after[run] for run in before} == before
        for agent in agents:
            output, _ = agent.communicate(timeout=180)
            assert agent.returncode == 0, output
        sweep = sweep_of(hub, name)
        nodes = [edge["node"] for edge in sweep["runs"]["edges"]]
        assert sweep["state"] == "FINISHED"
        assert [node["state"] for node in nodes] == ["finished"] * RUNS
        for node in nodes:
            x, rows = json.loads(node["config"])["x"]["value"], [json.loads(text) for text in node["history"]]
            assert node["historyLineCount"] == ROWS
            assert [row["loss"] for row in rows] == [x + step for step in range(ROWS)]
            assert json.loads(node["summaryMetrics"])["score"] == x
