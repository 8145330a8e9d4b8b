"""A device elsewhere under the real `wandb agent`, over a real hub: silent, asked again, killed while measuring."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.device import Devices, told
from support.hub import HubProcess
from support.wait import wait_for


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devices]:
    with HubProcess(tmp_path_factory.mktemp("devices")) as hub:
        yield Devices(hub)


def test_a_device_answers_once_what_is_asked_again_and_again(devices: Devices) -> None:
    """Silent, it has failed; its agent then answers what waits, without torch; nothing is measured twice."""
    sweep = devices.add("board1")
    assert devices.add("board1") == sweep
    silent = devices.ask("board1", minutes=0.05)["failed"]
    assert (silent["kind"], silent["stage"]) == ("device", "measure")
    assert f"start `wandb agent {sweep}` there" in silent["message"] and "no agent has taken" in silent["message"]
    agent = devices.agent(sweep)
    first = devices.ask("board1")
    runs = devices.runs(sweep)
    assert [run["state"] for run in runs] == ["finished", "finished"], agent
    assert first["latency"]["ratio"] < 0.9 and first["latency"]["device"]["name"] == "board1"
    assert first["samples"]["half"] == first["latency"]["n"]
    assert runs[-1]["summary"]["answer"]["latencies"][1] == first["latency"]
    assert len({run["summary"]["reference"]["ms"] for run in runs}) == 1  # timed once a day
    assert devices.ask("board1") == first and len(devices.runs(sweep)) == 2
    unknown = devices.asking("board7").communicate(timeout=120)[0]
    assert "measure.device: got 'board7'; write local or one of board1" in unknown
    assert "; `prunefleet device add board7` makes" in unknown
    listed = devices.hub.run(sys.executable, "-m", "prunefleet.infra.cli", "device", **devices.env)
    assert f"board1: wandb agent --forward-signals {sweep}" in listed.splitlines()


@pytest.mark.slow
def test_a_measurement_that_is_killed_comes_back(devices: Devices) -> None:
    """kill -9 in a measurement gives the run back to the queue: it is measured under the same id, asked for once."""
    sweep = devices.add("board2")
    devices.agent(sweep)
    asking = devices.asking("board2", throughput_s=2.0)
    gate = wait_for(lambda: next(devices.tmp.glob("prunefleet-*/gate"), None), 60)
    wait_for(lambda: b"board2" in gate.read_bytes(), 60)
    os.kill(_measuring(devices.hub.folder), signal.SIGKILL)
    found = told(asking)
    assert found["latency"]["ratio"] < 0.9 and found["latency"]["throughput_fps"] > 0
    assert [run["state"] for run in devices.runs(sweep)] == ["finished", "finished"]


def _measuring(folder: Path) -> int:
    """The process that measures."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if b"agent\0measure" in line and str(folder).encode() in environment:
            return int(process.name)
    raise AssertionError("nothing measures")
