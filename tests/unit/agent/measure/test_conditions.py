"""How the host is while it measures, read from trees that look like /proc and /sys."""

import os
from pathlib import Path

import pytest

from prunefleet.agent.measure.conditions import conditions
from prunefleet.objective.trial import Conditions


def tree(root: Path, **files: str) -> Path:
    """Files below `root`; a double underscore in a name stands for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


CORE = min(os.sched_getaffinity(0))


def test_everything_is_read_where_the_kernel_tells(tmp_path: Path) -> None:
    """Load of the last minute, clock of the cores in MHz, and the hottest of the processor's own sensors."""
    tree(tmp_path, proc__loadavg="1.25 0.5 0.1 2/99 7\n", sys__class__hwmon__hwmon0__name="nvme\n")
    tree(tmp_path / "sys/class/hwmon", hwmon0__temp1_input="90000\n", hwmon1__name="k10temp\n")
    tree(tmp_path / "sys/class/hwmon/hwmon1", temp1_input="51000\n", temp3_input="52500\n")
    tree(tmp_path / "sys/devices/system/cpu", **{f"cpu{CORE}__cpufreq__scaling_cur_freq": "2400000\n"})
    assert conditions(tmp_path) == Conditions(load=1.25, cpu_mhz=2400.0, celsius=52.5)


def test_a_board_without_hwmon_has_its_thermal_zone(tmp_path: Path) -> None:
    """And a host without cpufreq the clock of its processor's description."""
    tree(tmp_path / "sys/class/thermal/thermal_zone0", type="CPU-therm\n", temp="43500\n")
    tree(tmp_path / "sys/class/thermal/thermal_zone1", type="GPU-therm\n", temp="70000\n")
    tree(tmp_path, proc__cpuinfo="cpu MHz\t\t: 2000.0\nother: 1\ncpu MHz\t\t: 2100.0\n")
    assert conditions(tmp_path) == Conditions(None, 2050.0, 43.5)


def test_what_cannot_be_read_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty host, a sensor that is asleep, and one that may not be read are all unknown, not zero."""
    assert conditions(tmp_path) == Conditions(None, None, None)
    tree(tmp_path / "sys/class/hwmon/hwmon0", name="coretemp\n", temp1_input="\n")
    assert conditions(tmp_path).celsius is None
    monkeypatch.setattr(Path, "read_text", lambda _: (_ for _ in ()).throw(OSError(61, "No data available")))
    assert conditions(tmp_path) == Conditions(None, None, None)


def test_this_host_has_a_load() -> None:
    """The real thing, once."""
    found = conditions()
    assert found.load is not None and found.load >= 0
