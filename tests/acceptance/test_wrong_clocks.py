"""Hosts whose clocks are hours off, beside a real hub: work comes to its end, and the page's times are the server's."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.device import CLOCK, Devices, path
from support.hub import HubProcess
from support.paths import TESTS
from support.tiny_sweep import tiny_sweep


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[Devices]:
    with HubProcess(tmp_path / "hub") as hub:
        yield Devices(hub)


@pytest.mark.slow
@pytest.mark.parametrize("hours", [-30, 9])
def test_an_edge_host_with_a_wrong_clock_measures(devices: Devices, hours: float) -> None:
    """Its answer comes as from any host, its reference network is timed, and its runs stand at the server's time."""
    sweep = devices.add("board")
    began = now()
    devices.agent(sweep, "edge", **{CLOCK: str(hours)})
    found = devices.ask("board")
    assert found["latency"]["ratio"] < 0.9 and found["hosts"] == ["edge"]
    assert all(run["summary"]["reference"]["ms"] > 0 for run in devices.runs(sweep))
    kept = json.loads((devices.hub.folder / "edge" / "c" / "reference" / "cpu.json").read_text())
    assert abs(kept["at"] - (began + timedelta(hours=hours)).timestamp()) < 3600  # its clock was wrong indeed
    assert_times_between(times(devices.hub, sweep), began, now())


@pytest.mark.slow
@pytest.mark.parametrize("hours", [-30, 9])
def test_a_trial_host_with_a_wrong_clock_scores(devices: Devices, hours: float) -> None:
    """Two trials of a sweep are scored, and what the hub says of when they ran is its own clock's."""
    hub = devices.hub
    (hub.folder / "clock").mkdir()
    (hub.folder / "clock" / "sitecustomize.py").write_text(_ONLY_THE_CLOCK)
    (hub.folder / "sweep.yaml").write_text(tiny_sweep("[0.0, 0.5]"))
    made = hub.wandb("sweep", "--project", "lab", "sweep.yaml")
    sweep = "local/lab/" + made.split("wandb agent local/lab/")[1].split()[0]
    own = {CLOCK: str(hours), "PYTHONPATH": path(hub.folder / "clock", TESTS.parent, TESTS), "OMP_NUM_THREADS": "1"}
    began = now()
    agent = hub.agent(sweep, **own, PRUNEFLEET_CACHE=str(hub.folder / "pruned"))
    said, _ = agent.communicate(timeout=300)
    assert agent.returncode == 0, said
    runs = devices.runs(sweep)
    assert [run["summary"]["outcome"] for run in runs] == ["scored", "scored"], said
    assert_times_between(times(hub, sweep), began, now())


_ONLY_THE_CLOCK = f"""
import os, time
offset = 3600 * float(os.environ[{CLOCK!r}])
right, right_ns = time.time, time.time_ns
time.time = lambda: right() + offset
time.time_ns = lambda: right_ns() + int(offset * 1e9)
"""


def now() -> datetime:
    """To the second, as the server tells."""
    return datetime.now(UTC).replace(microsecond=0)


def times(hub: HubProcess, sweep: str) -> list[datetime]:
    """All moments that the page of a sweep shows: its runs' and its agents'."""
    text = """query S($name: String!) { project(name: "lab") { sweep(sweepName: $name) {
        runs { edges { node { createdAt heartbeatAt updatedAt } } } agents { edges { node { heartbeatAt } } } } } }"""
    found: Any = hub.query(text, name=sweep.rsplit("/", 1)[1])["project"]["sweep"]
    nodes = [edge["node"] for kind in ("runs", "agents") for edge in found[kind]["edges"]]
    told = [value for node in nodes for value in node.values() if value]
    return [each if each.tzinfo else each.replace(tzinfo=UTC) for each in map(datetime.fromisoformat, told)]


def assert_times_between(found: list[datetime], began: datetime, ended: datetime) -> None:
    """All within what happened meanwhile, give or take the second that is cut off."""
    assert len(found) >= 5 and all(began <= each <= ended + timedelta(seconds=1) for each in found), (began, found)
