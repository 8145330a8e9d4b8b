"""What version 0.1 left goes on: a hub's folder, a half-finished planned sweep with the user's own code, a joined host.

data/version-0.1.tar.gz was made by version 0.1: `hub/` with one of four trials done, the `sweep/` that was planned, and
`board.env`, which `prunefleet join` left on a host.
"""

import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml

from support.hub import HubProcess, end_session
from support.paths import TESTS
from support.wait import wait_for

LEFT = TESTS / "acceptance" / "data" / "version-0.1.tar.gz"
SWEEP = "local/lab/4uqo4qha"
RUNS = 4


def _runs(hub: HubProcess, key: str) -> list[Any]:
    api = wandb.Api(overrides={"base_url": hub.url}, api_key=key, timeout=30)
    return list(api.sweep(SWEEP).runs)


def test_a_hub_s_folder_of_version_0_1_opens_as_it_was_left(tmp_path: Path) -> None:
    """The key that a host joined with is good, and the sweep stands there, its finished run whole."""
    with tarfile.open(LEFT) as archive:
        archive.extractall(tmp_path, filter="data")
    planned = yaml.safe_load((tmp_path / "sweep" / "planned.yaml").read_text())["parameters"]
    lines = dict(line.split("=", 1) for line in (tmp_path / "board.env").read_text().splitlines() if "=" in line)
    text = """query { project(name: "lab", entityName: "local") { sweep(sweepName: "4uqo4qha") {
        state runs { edges { node { state config summaryMetrics } } } } } }"""
    with HubProcess(tmp_path) as hub:
        status, answer = hub.post("/graphql", {"query": text}, lines["WANDB_API_KEY"])
    assert status == 200, answer
    sweep = answer["data"]["project"]["sweep"]
    (run,) = (edge["node"] for edge in sweep["runs"]["edges"] if edge["node"]["state"] == "finished")
    config = {name: each["value"] for name, each in json.loads(run["config"]).items()}
    assert config["baseline_hash"] == planned["baseline"]["value"] and config["code"] == planned["code"]["value"]
    assert json.loads(run["summaryMetrics"])["outcome"] in ("scored", "skipped")
    assert sweep["state"] == "RUNNING" and config["versions"]["prunefleet"] == "0.1.0"


# `make test` has the test above, and module names of version 0.1 in tests/unit/objective/test_old_names.py.
@pytest.mark.slow
def test_a_half_finished_sweep_of_version_0_1_goes_on(tmp_path: Path) -> None:
    """Its host, with an empty cache, fetches the sweep's code and dense network and ends the three trials left."""
    with tarfile.open(LEFT) as archive:
        archive.extractall(tmp_path, filter="data")
    kept = tmp_path / "home" / ".config" / "prunefleet" / "board.env"
    kept.parent.mkdir(parents=True)
    planned = yaml.safe_load((tmp_path / "sweep" / "planned.yaml").read_text())["parameters"]
    with HubProcess(tmp_path) as hub:
        lines = dict(line.split("=", 1) for line in (tmp_path / "board.env").read_text().splitlines() if "=" in line)
        lines |= {"WANDB_BASE_URL": hub.url, "PRUNEFLEET_CACHE": str(tmp_path / "cache")}
        kept.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        kept.chmod(0o600)
        own = {"HOME": str(tmp_path / "home"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        own |= {"OMP_NUM_THREADS": "1", "WANDB_ERROR_REPORTING": "false"}
        own |= {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        argv = [str(Path(sys.executable).parent / "prunefleet"), "agent", "board"]
        log = tmp_path / "agent.log"
        with log.open("wb") as out:
            host = subprocess.Popen(
                argv, cwd=tmp_path / "home", env=own, stdout=out, stderr=out, start_new_session=True
            )
        try:
            key = lines["WANDB_API_KEY"]
            wait_for(lambda: [run.state for run in _runs(hub, key)] == ["finished"] * RUNS, 240, every=1)
            os.kill(host.pid, signal.SIGTERM)
            assert host.wait(60) == 0
        finally:
            end_session(host)
        found = [(run.config, run.summary.get("outcome")) for run in _runs(hub, key)]
    assert len(found) == RUNS and {outcome for _, outcome in found} <= {"scored", "skipped"}
    assert {config["code"] for config, _ in found} == {planned["code"]["value"]}
    assert {config["baseline_hash"] for config, _ in found} == {planned["baseline"]["value"]}
    assert sorted(config["versions"]["prunefleet"] for config, _ in found) == ["0.1.0", "0.2.0", "0.2.0", "0.2.0"]
    said = "".join(path.read_text(errors="replace") for path in (tmp_path / "home").rglob("agent-1.log"))
    assert "`agent` is a module name of version 0.1; it still works here" in said
