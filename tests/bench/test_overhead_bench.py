"""What of a demo trial is neither training nor evaluation nor measurement: figures to docs/results/overhead.*.

Alone on the machine it takes less than ten minutes. `OVERHEAD_BENCH_SHORT=1` shortens all of it for a trial of the
bench itself, whose figures are not kept and whose bar does not count.
"""

import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from studies.overhead.study import costs, keep, share
from support.hub import HubProcess
from support.paths import ROOT
from support.wait import wait_for

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1200)]

SHORT = bool(os.environ.get("OVERHEAD_BENCH_SHORT"))
AGENTS = 2
RATIOS = [0.5, 0.75] if SHORT else [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]
HALVED = ("stem", "stage1_conv", "stage1_block0_conv1", "stage2_conv", "stage3_conv")
BAR = 0.10


def _sweep(baseline: str | None = None) -> dict[str, Any]:
    """The default sweep over one group, the others halved, each candidate faster than those before: few are skipped."""
    sweep: dict[str, Any] = yaml.safe_load((ROOT / "sweep.yaml").read_text())
    sweep |= {"method": "grid", "run_cap": len(RATIOS)}
    parameters = sweep["parameters"]
    ratios = {**{group: {"value": 0.5} for group in HALVED}, "stage3_block0_conv1": {"values": RATIOS}}
    parameters |= {"task": {"value": "studies.overhead.study:Brief"}, "ratio": {"parameters": ratios}}
    if SHORT:
        parameters["recipe"]["parameters"]["epochs"] = {"value": 0.1}
    return sweep if baseline is None else sweep | {"parameters": parameters | {"baseline": {"value": baseline}}}


def test_overhead_of_a_demo_trial(tmp_path: Path) -> None:
    """Of the time from run issued to its end at most a tenth is neither training, evaluation nor measurement."""
    with HubProcess(tmp_path) as hub:
        cache = tmp_path / "pruned"
        env = {"PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}", "PRUNEFLEET_CACHE": str(cache), "WANDB_PROJECT": "lab"}
        env |= {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "WANDB_SILENT": "true", "TMPDIR": str(tmp_path)}
        file = tmp_path / "sweep.yaml"
        file.write_text(yaml.safe_dump(_sweep()))
        hub.run(sys.executable, "-m", "prunefleet.agent", "baseline", str(file), **env)
        (dense,) = (cache / "dense").glob("dense-*.json")
        file.write_text(yaml.safe_dump(_sweep(json.loads(dense.read_text())["sha256"])))
        told = hub.run(sys.executable, "-m", "wandb", "sweep", "--project", "lab", str(file))
        sweep = "local/lab/" + told.split("wandb agent local/lab/")[1].split()[0]
        agents = [
            hub.popen(
                *(sys.executable, "-m", "wandb", "agent", "--forward-signals", sweep),
                **env | {"WANDB_DIR": str(_made(tmp_path / f"agent-{number}"))},
            )
            for number in range(AGENTS)
        ]
        for agent in agents:
            output, _ = agent.communicate(timeout=900)
            assert agent.returncode == 0, output
        runs = wait_for(lambda: _ended(tmp_path / "hub"))
    found = costs(runs)
    keep(found, not SHORT)
    assert len(found) > len(RATIOS) // 2
    assert SHORT or share(found) <= BAR


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _ended(hub: Path) -> list[dict[str, Any]]:
    """The sweep's runs, once the hub has the end of all; to the millisecond, which its answers do not have."""
    names = "agent_id AS agent, issued_at AS issued, started_at AS opened, finished_at AS finished, summary"
    with closing(sqlite3.connect(f"file:{next(hub.glob('*.db'))}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        rows = database.execute(f"SELECT {names} FROM run WHERE sweep_id IS NOT NULL ORDER BY issued_at").fetchall()
    runs = [dict(row) | {"summary": json.loads(row["summary"])} for row in rows]
    return runs if len(runs) == len(RATIOS) and all(run["finished"] for run in runs) else []
