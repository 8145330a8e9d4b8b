"""A plan and a trial for a device elsewhere: `prunefleet plan --measure-on` and real agents, no torch on its host."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from prunefleet.objective.profiles.profile import Profile

from support.device import Devices, path
from support.hub import HubProcess
from support.paths import TESTS

SWEEP = """
name: tiny
program: prunefleet
command: ["${env}", prunefleet, trial]
method: random
metric: {name: score, goal: maximize}
run_cap: 1
parameters:
  task: {value: "tiny_task:TinyTask"}
  objective: {parameters: {kind: {value: fastest}, metric: {value: top1}, max_drop: {value: 0.5}}}
  measure: {parameters: {device: {value: local}, precision: {value: f32}}}
  recipe: {parameters: {epochs: {value: 0.5}}}
"""


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[Devices]:
    with HubProcess(tmp_path / "hub") as hub:
        yield Devices(hub)


def command(devices: Devices, *words: str, code: int = 0) -> str:
    """What `prunefleet` says on the host that trains."""
    started = devices.hub.popen(sys.executable, "-m", "prunefleet.agent", *words, **training(devices))
    said, _ = started.communicate(timeout=500)
    assert started.returncode == code, said
    return said


def training(devices: Devices) -> dict[str, str]:
    """The environment of the host that trains: it has torch, the task and a cache of its own."""
    own = {"PYTHONPATH": path(TESTS.parent, TESTS), "PRUNEFLEET_CACHE": str(devices.hub.folder / "train")}
    return {**devices.env, **own}


@pytest.mark.slow
def test_a_device_that_is_not_there_is_one_line(devices: Devices) -> None:
    """The line lists the devices there are and says how this one is added."""
    devices.add("board1")
    (devices.hub.folder / "sweep.yaml").write_text(SWEEP)
    said = command(devices, "plan", "sweep.yaml", "--measure-on", "board7", code=2).strip().splitlines()[-1]
    assert said.startswith("prunefleet: measure.device: got 'board7'; write local or one of board1; "), said
    assert "`prunefleet device add board7` makes it known in local/lab" in said


@pytest.mark.slow
def test_a_plan_and_a_trial_measure_on_a_device_elsewhere(devices: Devices) -> None:
    """Accuracy and training here, every latency there, the answer's too; trials on another device are refused."""
    sweep = devices.add("board1")
    devices.agent(sweep)
    folder = devices.hub.folder
    (folder / "sweep.yaml").write_text(SWEEP)
    words = ("plan", "sweep.yaml", "--measure-on", "board1", "--out", "resolved.yaml", "--mixed", "24")
    said = command(devices, *words)
    resolved = yaml.safe_load((folder / "resolved.yaml").read_text())
    parameters = resolved["parameters"]
    assert parameters["measure"]["parameters"]["device"] == {"value": "board1"}, said
    assert parameters["profile"]["value"] == "profile-tiny-on-board1-f32:v0"
    profile = fetched(devices, "profile-tiny-on-board1-f32:v0")
    assert profile.fingerprint is not None and profile.fingerprint.name == "board1"
    assert {group.step for group in profile.groups} == {profile.fingerprint.channel_steps["f32"]}
    assert len(profile.latencies) > 20 and min(ratio for _, ratio in profile.latencies) < 0.8
    asked = len(devices.runs(sweep))
    run = trial(devices, resolved)
    assert run["summary"]["outcome"] == "scored", run
    assert run["config"]["device"]["value"]["name"] == "board1"
    assert asked < len(devices.runs(sweep)) <= asked + 3  # on a noisy host a candidate sits up to three times
    command(devices, "answer", run["sweep"], "--out", "answer.json")
    answer = json.loads((folder / "answer.json").read_text())
    assert answer["winner"]["run"] == run["name"] and answer["sitting"]["device"]["name"] == "board1"
    assert {"dense", "dense_default", "uniform"} <= set(answer["controls"])
    parameters["measure"]["parameters"]["device"] = {"value": "local"}
    refused = trial(devices, resolved)["summary"]
    assert refused["failure_kind"] == "bad_input" and "measured on board1" in refused["failure_message"]


@pytest.mark.slow
def test_a_sweep_for_this_host_and_a_device_elsewhere(devices: Devices) -> None:
    """Every network is measured on both, the slower one counts, and plan, trial and answer tell what each took."""
    devices.agent(devices.add("board1"))
    folder = devices.hub.folder
    (folder / "sweep.yaml").write_text(SWEEP.replace("method: random", "method: bayes"))
    said = command(
        devices, "plan", "sweep.yaml", "--measure-on", "local,board1", "--out", "resolved.yaml", "--mixed", "12"
    )
    resolved = yaml.safe_load((folder / "resolved.yaml").read_text())
    assert resolved["parameters"]["measure"]["parameters"]["device"] == {"value": ["local", "board1"]}, said
    profile = fetched(devices, resolved["parameters"]["profile"]["value"])
    assert [each.fingerprint.name for each in profile.devices] == ["local", "board1"]
    run = trial(devices, resolved)
    summary = run["summary"]
    assert summary["outcome"] == "scored", run
    assert set(summary["devices"]) == {"local", "board1"}
    assert summary["latency_ratio"] == max(each["latency_ratio"] for each in summary["devices"].values())
    assert [each["name"] for each in run["config"]["devices"]["value"]] == ["local", "board1"]
    command(devices, "answer", run["sweep"], "--out", "answer.json")
    winner = json.loads((folder / "answer.json").read_text())["winner"]
    assert winner["latency_ratio"] == max(each["latency_ratio"] for each in winner["devices"].values())
    assert len(winner["devices"]) == 2


def fetched(devices: Devices, artifact: str) -> Profile:
    """The profile that a plan logged."""
    code = f"import wandb; print(wandb.Api().artifact('local/lab/{artifact}').download(root='profile'))"
    devices.hub.python(code)
    return Profile.load(devices.hub.folder / "profile" / "profile.json")


def trial(devices: Devices, config: dict[str, Any]) -> dict[str, Any]:
    """The one run of a sweep of that file, once its agent has ended."""
    (devices.hub.folder / "trial.yaml").write_text(yaml.safe_dump(config))
    output = devices.hub.wandb("sweep", "--project", "lab", "trial.yaml")
    sweep = "local/lab/" + output.split("wandb agent local/lab/")[1].split()[0]
    agent = devices.hub.popen(sys.executable, "-m", "wandb", "agent", "--count", "1", sweep, **training(devices))
    said, _ = agent.communicate(timeout=300)
    run = devices.runs(sweep)[0]

    return run | {"config": json.loads(run["config"]), "said": said, "sweep": sweep}
