"""1 to 256 simulated agents on the hub's wire, and real ones in a storm: figures and raw data to docs/results/fleet.*.

`FLEET_BENCH_TRIALS` below the usual 6 of each agent shortens it for a trial of the bench itself, whose figures are not
kept.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studies.fleet.load import CANDIDATE, FILES, TRIALS
from studies.fleet.report import keep, of_linear, throughput
from studies.storm.run import CALM, long_storm
from studies.storm.study import DENSE, SPARSE
from support.hub import HubProcess, basic
from support.measure import children, cpu_seconds
from support.paths import TESTS

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]
EACH = int(os.environ.get("FLEET_BENCH_TRIALS", TRIALS))
AGENTS, LINEAR_TO = (1, 8, 64, 256), 64
METHOD = "random"
SEED = 6
STORMS = {"dense": (24, DENSE, 0.75), "sparse": (60, SPARSE, 0.9)}
"""Trials, pace, and what of the hosts' time left must become of use: a fault every 17 s spoils trials of 20 s."""
SWEEP = f"program: prunefleet\nmethod: {METHOD}\nmetric: {{name: score, goal: maximize}}\nparameters:\n"
RATIOS = "".join(f"  conv{number}: {{min: 0.0, max: 0.9}}\n" for number in range(1, 9))
MAKE = (
    """mutation($config: String!) { upsertSweep(input: {config: $config, projectName: "fleet"}) { sweep { name } } }"""
)


def test_a_growing_fleet(tmp_path: Path) -> None:
    """Trials per hour grow with the agents: 95 % of linear to 64; heartbeats: a p99 of 100 ms, and none takes 1 s."""
    steps = [_step(tmp_path / str(agents), agents) for agents in AGENTS]
    size = sum(CANDIDATE.values()) + sum(FILES.values())
    plan = {"trials": EACH, "method": METHOD, "bytes": size}
    keep("agents", {"plan": plan, "steps": steps}, EACH >= TRIALS)
    for step in steps:
        assert step["ended"] == step["agents"] * EACH
        if step["agents"] <= LINEAR_TO:
            assert of_linear(step, steps[0], EACH) >= 0.95, step["agents"]
        assert np.percentile(step["beats"], 99) <= 100, step["agents"]
        assert max(step["beats"]) <= 1000, step["agents"]


def _step(folder: Path, agents: int) -> dict[str, Any]:
    """What so many agents found, and the processor seconds of hub and controller."""
    with HubProcess(folder) as hub:
        sweep = hub.query(MAKE, config=SWEEP + RATIOS)["upsertSweep"]["sweep"]["name"]
        plan = {"url": hub.url, "authorization": basic(hub.api_key), "entity": "local", "project": "fleet"}
        (folder / "plan.json").write_text(json.dumps({**plan, "sweep": sweep, "agents": agents, "trials": EACH}))
        script = TESTS / "studies" / "fleet" / "load.py"
        with (folder / "load.json").open("w") as out:
            load = subprocess.Popen([sys.executable, str(script), str(folder / "plan.json")], stdout=out)
            below = 0.0
            while load.poll() is None:  # the controller's time is gone with its process
                below = max(below, sum(map(cpu_seconds, children(hub.pid))))
                time.sleep(1)
        assert load.returncode == 0
        found = json.loads((folder / "load.json").read_text())
        return {"agents": agents, **found, "hub_s": cpu_seconds(hub.pid), "controller_s": below}


@pytest.mark.netns
@pytest.mark.parametrize("name", STORMS)
def test_a_storm(tmp_path: Path, name: str) -> None:
    """In a storm 0.9 of the trials a minute that the time left to the hosts would give, and all is there, once.

    In a dense one the first is 0.75.
    """
    trials, pace, bar = STORMS[name]
    trials, calm = (trials, CALM) if EACH >= TRIALS else (4, 3)
    told = long_storm(tmp_path, print, trials, SEED, calm, pace)
    plan = {"name": name, "pace": astuple(pace), "trials": trials, "calm": calm, "seed": SEED}
    keep(name, {**plan, **told}, EACH >= TRIALS)
    assert throughput(told) >= bar * told["hosts_alive"]
