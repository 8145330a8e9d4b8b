"""A host that pauses, with real `wandb agent` processes at a real hub."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunefleet.infra.fleet.supervision.pauses import GIB, LOOK_EVERY, Pauses
from prunefleet.infra.fleet.supervision.supervise import Agent, Supervisor

from support.hub import HubProcess
from support.wait import wait_for

TRAIN = """
import os, pathlib, time
import wandb
run = wandb.init(resume="allow")
pathlib.Path(f"began-{run.id}").touch()
while not pathlib.Path("go-on").exists():
    time.sleep(0.05)
run.log({"loss": 1.0})
"""
SWEEP = """
program: train.py
command: ["${env}", %r, "${program}"]
method: random
metric: {name: loss, goal: minimize}
parameters: {x: {min: 0.0, max: 1.0}}
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    with HubProcess(tmp_path / "hub") as process:
        yield process


def test_a_trial_under_way_ends_well_and_no_other_begins(hub: HubProcess) -> None:
    """The trial comes to its end, its agent then ends, and no trial is left with a host that pauses."""
    (hub.folder / "train.py").write_text(TRAIN)
    (hub.folder / "sweep.yaml").write_text(SWEEP % sys.executable)
    made = hub.wandb("sweep", "--project", "lab", "sweep.yaml")
    sweep = "local/lab/" + made.split("wandb agent local/lab/")[1].split()[0]
    free = 9.0
    host = Pauses([hub.folder], hub.folder, lambda path: (0, 0, int(free * GIB)))
    supervisor = Supervisor([Agent(1, sweep, hub.env(), hub.folder / "agents", hub.folder)], pauses=host)
    try:
        supervisor.tend()
        wait_for(lambda: list(hub.folder.glob("began-*")), 60)
        free = 0.0
        wait_for(lambda: supervisor.tend() or supervisor.paused(), 3 * LOOK_EVERY)
        assert supervisor.busy() and states(hub, sweep) == ["running"]
        (hub.folder / "go-on").touch()
        wait_for(lambda: supervisor.tend() or not supervisor.busy(), 60)
        first, *more = states(hub, sweep)
        assert first == "finished" and set(more) <= {"pending", "failed", "crashed"} and len(more) < 2
    finally:
        supervisor.stop(patience=5)


def states(hub: HubProcess, sweep: str) -> list[str]:
    """Of the sweep's runs, oldest first."""
    text = """query S($name: String!) { project(name: "lab") { sweep(sweepName: $name) {
        runs(order: "+created_at") { edges { node { state } } } } } }"""
    found = hub.query(text, name=sweep.rsplit("/", 1)[1])["project"]["sweep"]["runs"]["edges"]
    return [edge["node"]["state"] for edge in found]
