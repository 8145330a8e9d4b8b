"""Two boards of one kind on one queue: one of them dies, hangs, or is noisy, and the other one measures."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.device import Devices, told
from support.hub import HubProcess, end_session
from support.wait import wait_for

SILENCE_S = 8.0
BOARDS = ("left", "right")


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[Devices]:
    with HubProcess(tmp_path / "hub", timing={"host_silence": SILENCE_S}) as hub:
        yield Devices(hub)


@pytest.mark.slow
def test_a_board_that_dies_leaves_its_measurement_to_the_other(devices: Devices) -> None:
    """Without a word for as long as the hub waits, its run goes to the other board, under the same id, once."""
    sweep = devices.add("board")
    agents = {host: devices.agent(sweep, host) for host in BOARDS}
    asking = devices.asking("board", throughput_s=2.0)
    dies = wait_for(lambda: measuring(devices.hub.folder), 90)
    end_session(agents[dies])
    found = told(asking)
    assert found["hosts"] == [next(host for host in BOARDS if host != dies)]
    assert found["samples"]["half"] == found["latency"]["n"]
    assert [run["state"] for run in devices.runs(sweep)] == ["finished", "finished"]


@pytest.mark.slow
def test_a_board_that_hangs_hands_its_measurement_back(devices: Devices) -> None:
    """One that is alive and never done ends its measurement itself, in time for the other board to answer."""
    sweep = devices.add("board")
    agents = [devices.agent(sweep, "left", PRUNEFLEET_DEVICE_MINUTES="0.5")]
    folder = devices.hub.folder / "left" / "tmp" / f"prunefleet-{os.getuid()}"
    folder.mkdir(mode=0o700)
    with (folder / "work").open("w") as work:
        fcntl.flock(work, fcntl.LOCK_EX)  # as a batch that never ends
        asking = devices.asking("board")
        wait_for(lambda: (folder / "gate").exists() and (folder / "gate").read_bytes(), 90)
        agents.append(devices.agent(sweep, "right"))
        assert told(asking)["hosts"] == ["right"]
    assert [run["state"] for run in devices.runs(sweep)] == ["finished", "finished"]
    assert all(agent.poll() is None for agent in agents)


@pytest.mark.slow
def test_networks_are_measured_again_on_another_board(devices: Devices) -> None:
    """Where a board was noisy the same networks are timed anew, by another board while one is there."""
    sweep = devices.add("board")
    for host in BOARDS:  # both have answered before
        agent = devices.agent(sweep, host)
        assert devices.ask("board", seeds=[BOARDS.index(host)])["hosts"] == [host]
        end_session(agent)
    agents = [devices.agent(sweep, host) for host in BOARDS]
    first, second = devices.ask("board", seeds=[7, 8])["hosts"]
    assert {first, second} == set(BOARDS)
    states = [run["state"] for run in devices.runs(sweep)]
    assert set(states) == {"finished"} and all(agent.poll() is None for agent in agents)
    end_session(agents[BOARDS.index(first)])
    assert devices.ask("board", seeds=[9, 10])["hosts"] == [second, second]


def measuring(folder: Path) -> str | None:
    """The host that measures networks now, by the note in its lock."""
    for host in BOARDS:
        gates = list((folder / host / "tmp").glob("prunefleet-*/gate"))
        if gates and b"board" in gates[0].read_bytes():
            return host
    return None
