"""A device elsewhere on a server that enqueues no runs: its host polls, over a real hub behind a proxy that refuses."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.device import Devices, path, told
from support.hub import HubProcess
from support.paths import ROOT
from support.proxy import proxied
from support.wait import wait_for

REFUSED = ("SWEEPS_LOCAL_SCHEDULER", "enqueueSweepRun")


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[Devices]:
    with HubProcess(tmp_path / "hub") as hub, proxied(hub.url, "", strips=False, without=REFUSED) as address:
        made = Devices(hub)
        made.add("board")
        made.env |= {"WANDB_BASE_URL": address}
        yield made


def test_a_host_polls_for_requests_and_answers_each_once(devices: Devices) -> None:
    """Silent, it has failed, with the line to start; what waits is answered then, once, however often it is asked."""
    silent = devices.ask("board", minutes=0.05)["failed"]
    assert "start `prunefleet measure --poll board` there" in silent["message"]
    polling = poll(devices)
    first = devices.ask("board")
    assert first["latency"]["ratio"] < 0.9 and first["samples"]["half"] == first["latency"]["n"]
    assert devices.ask("board") == first
    text = """query R($filters: JSONString) { project(name: "lab") { runs(filters: $filters) {
        edges { node { state } } } } }"""
    found = devices.hub.query(text, filters=json.dumps({"config.queue.value": "board"}))["project"]["runs"]["edges"]
    states = [edge["node"]["state"] for edge in found]
    assert states == ["finished", "finished"] and polling.poll() is None
    polling.send_signal(signal.SIGTERM)
    said, _ = polling.communicate(timeout=120)
    assert polling.returncode == 0, said
    doctor = devices.hub.run(sys.executable, "-m", "prunefleet.agent", "doctor", check=False, **devices.env)
    assert "measuring elsewhere: the server enqueues no runs: one host per device looks for requests" in doctor


def test_a_server_that_enqueues_runs_is_not_polled(tmp_path: Path) -> None:
    """There an agent is what the host runs; a device that is not there is one line too."""
    with HubProcess(tmp_path / "hub") as hub:
        devices = Devices(hub)
        sweep = devices.add("board")
        for name, words in (("board", f"start `wandb agent {sweep}` on"), ("other", "write local or one of board")):
            child = poll(devices, name)
            said, _ = child.communicate(timeout=120)
            assert child.returncode == 2 and words in said


@pytest.mark.slow
def test_a_request_that_was_handed_back_is_answered_later(devices: Devices) -> None:
    """Its host is stopped while it measures; started again, it goes on with the same run."""
    polling = poll(devices)
    asking = devices.asking("board", throughput_s=2.0)
    gate = wait_for(lambda: next(devices.tmp.glob("prunefleet-*/gate"), None), 90)
    wait_for(lambda: b"board" in gate.read_bytes(), 90)
    os.kill(polling.pid, signal.SIGTERM)
    polling.communicate(timeout=120)
    poll(devices)
    assert told(asking)["latency"]["ratio"] < 0.9


def poll(devices: Devices, name: str = "board") -> "subprocess.Popen[str]":
    """The edge host's command, in a Python that cannot import torch."""
    env = {
        **devices.env,
        "PYTHONPATH": path(devices.hub.folder, ROOT),
        "PRUNEFLEET_CACHE": str(devices.hub.folder / "c"),
    }
    return devices.hub.popen(sys.executable, "-m", "prunefleet.agent", "measure", "--poll", name, **env)
