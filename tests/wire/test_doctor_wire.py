"""`prunefleet doctor` at a real hub: the server, a sweep there, a device's queue, and what is wrong on the way."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.device import NO_TORCH, path
from support.hub import HubProcess
from support.paths import TESTS

SWEEP = {
    "name": "tiny",
    "program": "prunefleet",
    "command": ["${env}", "prunefleet", "trial"],
    "method": "random",
    "metric": {"name": "score", "goal": "maximize"},
    "parameters": {
        "task": {"value": "tiny_task:TinyTask"},
        "objective": {"parameters": {"kind": {"value": "fastest"}, "metric": {"value": "top1"}}},
        "measure": {"parameters": {"device": {"value": ["local", "board1"]}}},
        "ratio": {"parameters": {"conv1": {"min": 0.0, "max": 0.8}}},
    },
}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    with HubProcess(tmp_path / "hub") as process:
        yield process


def look(hub: HubProcess, *words: str, code: int = 0, **env: str) -> dict[str, Any]:
    """The findings by name."""
    own = {"PYTHONPATH": path(TESTS.parent, TESTS), "WANDB_PROJECT": "lab", **env}
    started = hub.popen(sys.executable, "-m", "prunefleet.agent", "doctor", "--json", *words, **own)
    said, _ = started.communicate(timeout=120)
    assert started.returncode == code, said
    return {each["name"]: each for each in json.loads(said[said.index("{") :])["findings"]}


def test_a_hub_and_its_sweeps_are_looked_at(hub: HubProcess) -> None:
    """The user, the clock, the link, the devices and what the sweep needs are told."""
    hub.run(sys.executable, "-m", "prunefleet.infra.cli", "device", "add", "board1", PYTHONPATH=path(TESTS.parent))
    (hub.folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    made = hub.wandb("sweep", "--project", "prunefleet", "sweep.yaml")
    name = made.split("wandb agent local/prunefleet/")[1].split()[0]
    found = look(hub, f"local/prunefleet/{name}")
    assert {found[each]["level"] for each in ("server", "clock", "link", "measuring elsewhere", "code", "data")} == {
        "ok"
    }
    assert found["server"]["found"].endswith("user local") and "enqueued" in found["measuring elsewhere"]["found"]
    assert found["sweep"]["found"] == f"local/prunefleet/{name}: no run yet"
    assert "board1 takes measurements" in found["measure"]["found"]


def test_a_host_without_torch_is_looked_at(hub: HubProcess) -> None:
    """What only measures has no torch: host, server, a device's queue and a wrong sweep are told there all the same."""
    device = hub.run(
        sys.executable, "-m", "prunefleet.infra.cli", "device", "add", "board1", PYTHONPATH=path(TESTS.parent)
    )
    (hub.folder / "sitecustomize.py").write_text(NO_TORCH)
    there = {"PYTHONPATH": path(hub.folder, TESTS.parent)}
    found = look(hub, device.split()[-1], **there)
    assert {"memory", "steadiness", "openvino", "link"} <= set(found) and found["sweep"]["level"] == "ok"
    assert "queue of board1" in found["sweep"]["found"]
    wrong = look(hub, "local/prunefleet/nothere", code=1, **there)["sweep"]
    assert wrong["level"] == "problem" and "entity/project/id" in wrong["remedy"]


def test_a_wrong_key_is_the_problem_that_is_told(hub: HubProcess) -> None:
    """One finding for the server, with the remedy; the key itself is not shown."""
    found = look(hub, code=1, WANDB_API_KEY="x" * 40)
    assert found["server"]["level"] == "problem" and "set the key of a user" in found["server"]["remedy"]
    assert "x" * 9 not in json.dumps(found) and "link" not in found
