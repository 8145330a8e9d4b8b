"""Pauses of a host for a full disk or for heat: when they begin, what ends them, and what runs meanwhile."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prunefleet.infra.fleet.supervision import pauses, supervise
from prunefleet.infra.fleet.supervision.pauses import GIB, LOOK_EVERY, Disk, Pauses, Sensor, disks, sensors, unwell
from prunefleet.infra.fleet.supervision.supervise import Agent, Supervisor
from prunefleet.objective.errors import BadInput

from support.wait import wait_for

NONE: dict[str, str] = {}
ROOMY = Disk(Path("/work"), 9 * GIB)


def usage(gib: float) -> Callable[[Path], tuple[int, int, int]]:
    return lambda path: (0, 0, int(gib * GIB))


def sysfs(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / "sys/class" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def zone(celsius: float, kind: str = "cpu-thermal", **trips: float) -> dict[str, str]:
    files = {"thermal/thermal_zone0/type": kind, "thermal/thermal_zone0/temp": f"{1000 * celsius:.0f}"}
    for place, (name, degrees) in enumerate(trips.items()):
        files[f"thermal/thermal_zone0/trip_point_{place}_type"] = name
        files[f"thermal/thermal_zone0/trip_point_{place}_temp"] = f"{1000 * degrees:.0f}"
    return files


def test_a_full_disk_pauses_until_there_is_room_to_spare() -> None:
    """Below half a GiB it pauses, from one GiB on it goes on; the line names the folder, the figures and a remedy."""
    tight, better = Disk(Path("/work"), int(0.4 * GIB)), Disk(Path("/work"), int(0.9 * GIB))
    told = unwell([ROOMY, tight], [], NONE)
    assert list(told) == ["disk"] and told["disk"].startswith("0.4 GiB are free for /work, at least 0.5 are needed")
    assert "`prunefleet cache clear`" in told["disk"]
    assert unwell([better], [], NONE) == {} and list(unwell([better], [], told)) == ["disk"]
    assert unwell([ROOMY], [], told) == {}


def test_a_hot_processor_pauses_until_it_is_ten_degrees_cooler() -> None:
    """At its limit it pauses, ten degrees below it goes on; a full disk beside it is a reason of its own."""
    told = unwell([ROOMY], [Sensor("cpu-thermal", 96.0, 95.0), Sensor("other", 97.0, 110.0)], NONE)
    assert told == {
        "heat": "cpu-thermal has 96 °C, its limit is 95 °C (PRUNEFLEET_HOT_CELSIUS); it goes on below 85 °C: "
        "improve the cooling"
    }
    assert list(unwell([ROOMY], [Sensor("cpu-thermal", 86.0, 95.0)], told)) == ["heat"]
    assert unwell([ROOMY], [Sensor("cpu-thermal", 84.0, 95.0)], told) == {}
    assert list(unwell([Disk(Path("/"), 0)], [Sensor("c", 99.0, 95.0)], NONE)) == ["disk", "heat"]


@pytest.mark.parametrize(
    ("trips", "limit"),
    [
        ({"critical": 110.0}, 100.0),
        ({"critical": 98.0}, 93.0),
        ({"passive": 70.0, "hot": 91.0, "critical": 98.0}, 91.0),
        ({"critical": 20.8}, 100.0),
        ({}, 100.0),
    ],
)
def test_a_zones_limit_is_its_firmwares(tmp_path: Path, trips: dict[str, float], limit: float) -> None:
    """Its hot trip point, 5 degrees below its critical one, 100 at most; limits that no processor has are ignored."""
    assert list(sensors(sysfs(tmp_path, zone(80.0, **trips)))) == [Sensor("cpu-thermal", 80.0, limit)]
    assert list(sensors(tmp_path, 60.0)) == [Sensor("cpu-thermal", 80.0, 60.0)]


def test_only_what_tells_of_the_processor_counts(tmp_path: Path) -> None:
    """Of hwmon the processor's own sensors, of zones without a limit those named after it; what sleeps is left out."""
    files = {
        "hwmon/hwmon0/name": "coretemp",
        "hwmon/hwmon0/temp1_input": "71000",
        "hwmon/hwmon0/temp1_crit": "96000",
        "hwmon/hwmon0/temp2_input": "70500",
        "hwmon/hwmon1/name": "nvme",
        "hwmon/hwmon1/temp1_input": "120000",
    }
    found = list(sensors(sysfs(tmp_path, files | zone(130.0, "iwlwifi_1"))))
    assert found == [Sensor("coretemp", 71.0, 91.0), Sensor("coretemp", 70.5, 100.0)]
    (tmp_path / "sys/class/hwmon/hwmon0/temp1_input").write_text("")
    assert len(list(sensors(tmp_path))) == 1 and list(sensors(tmp_path / "none")) == []


def test_room_is_looked_for_where_a_folder_will_be(tmp_path: Path) -> None:
    """A folder that is not there yet is judged by the nearest one above it; folders on one disk count once."""
    found = list(disks([tmp_path / "a" / "b", tmp_path], usage(3)))
    assert found == [Disk(tmp_path / "a" / "b", 3 * GIB)]

    def gone(path: Path) -> tuple[int, int, int]:
        raise OSError("stale")

    assert list(disks([tmp_path], gone)) == []


def test_people_are_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line when the pause begins, one for each further reason, one when it is over; between two looks nothing."""
    monkeypatch.delenv(pauses.VARIABLE, raising=False)
    free = 0.1
    host = Pauses([tmp_path], sysfs(tmp_path, zone(50.0)), lambda path: (0, 0, int(free * GIB)))
    told = host.look(0.0)
    assert told and told.startswith("This host starts no new trial, and what runs goes on: 0.1 GiB are free for")
    assert host.look(LOOK_EVERY) is None and list(host.reasons) == ["disk"]
    sysfs(tmp_path, zone(101.0))
    assert host.look(LOOK_EVERY + 1) is None
    hot = host.look(2 * LOOK_EVERY)
    assert hot and "°C" in hot and "GiB" not in hot
    free = 5.0
    sysfs(tmp_path, zone(60.0))
    assert host.look(3 * LOOK_EVERY) == "This host is well again: its agents go on." and not host.reasons
    assert host.look(4 * LOOK_EVERY) is None


def test_the_limit_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a sensor that is wrong; what is no temperature is refused in one line."""
    monkeypatch.setenv(pauses.VARIABLE, "70")
    assert pauses.own_limit() == 70.0
    for wrong in ("warm", "-3"):
        monkeypatch.setenv(pauses.VARIABLE, wrong)
        with pytest.raises(BadInput, match=r"PRUNEFLEET_HOT_CELSIUS: got .*; give degrees such as 95"):
            pauses.own_limit()


AGENT = """
import os, signal, subprocess, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
own = subprocess.Popen(["sleep", "60"])
run = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"],
    stdin=os.open(folder / "go-on", os.O_RDONLY), env={**os.environ, "WANDB_RUN_ID": "r"}, process_group=0)
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
(folder / "began").touch()
while not asked:
    time.sleep(0.02)
(folder / "ended").write_text(str(run.poll()))
own.kill()
"""


def test_what_runs_is_left_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While its host pauses an agent is asked to end once its trial has ended by itself; later it is started again."""
    os.mkfifo(tmp_path / "go-on")
    now, free, said = 1000.0, 9.0, list[str]()
    monkeypatch.setattr(supervise, "agent_command", lambda *about: [sys.executable, "-c", AGENT, str(tmp_path)])
    monkeypatch.setattr(supervise.time, "monotonic", lambda: now)
    host = Pauses([tmp_path], tmp_path, lambda path: (0, 0, int(free * GIB)))
    agent = Agent(1, "e/p/s", dict(os.environ), tmp_path, tmp_path)
    supervisor = Supervisor([agent], None, said.append, host)
    try:
        supervisor.tend()
        with (tmp_path / "go-on").open("w"):
            wait_for((tmp_path / "began").exists, 30)
            free, now = 0.0, now + LOOK_EVERY
            for _ in range(5):
                supervisor.tend()
            assert supervisor.busy() and not (tmp_path / "ended").exists()
            assert supervisor.paused() == "; this host pauses: its disk is full" and len(said) == 1
        wait_for(lambda: supervisor.tend() or not supervisor.busy(), 30)
        assert (tmp_path / "ended").read_text() == "0"
        now += 60
        supervisor.tend()
        assert not supervisor.busy() and agent.starts == 1
        free, now = 9.0, now + LOOK_EVERY
        supervisor.tend()
        assert agent.starts == 2 and said[1:] == ["This host is well again: its agents go on."]
        assert supervisor.paused() == ""
    finally:
        supervisor.stop(patience=5)
