"""How the host is at one moment: load, clock, temperature, each where the kernel tells.

Sources: proc(5) for the load average, and the kernel's documentation of cpufreq, hwmon and thermal zones in sysfs.
"""

import os
import re
from pathlib import Path

from prunefleet.objective.trial import Conditions

ROOT = Path("/")
CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
CPU_ZONES = ("x86_pkg_temp", "cpu-thermal", "cpu_thermal", "CPU-therm")


def conditions(root: Path = ROOT) -> Conditions:
    """Load average of the last minute, mean clock of the cores, the processor's temperature; None where not known."""
    return Conditions(_load(root), _cpu_mhz(root), _celsius(root))


def _load(root: Path) -> float | None:
    words = _text(root / "proc/loadavg").split()
    return float(words[0]) if words else None


def _cpu_mhz(root: Path) -> float | None:
    """Of the cores that this process may run on: from cpufreq, else as the processor's description has it."""
    base = root / "sys/devices/system/cpu"
    khz = [_number(base / f"cpu{core}/cpufreq/scaling_cur_freq") for core in os.sched_getaffinity(0)]
    clocks = [each / 1e3 for each in khz if each is not None]
    clocks = clocks or [float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*(\S+)$", _text(root / "proc/cpuinfo"), re.M)]
    return sum(clocks) / len(clocks) if clocks else None


def _celsius(root: Path) -> float | None:
    """The hottest of the processor's own sensors."""
    monitors = [path.parent for path in sorted(root.glob("sys/class/hwmon/hwmon*/name")) if _is(path, CPU_SENSORS)]
    zones = [path.parent for path in sorted(root.glob("sys/class/thermal/thermal_zone*/type")) if _is(path, CPU_ZONES)]
    files = [file for monitor in monitors for file in monitor.glob("temp*_input")] + [zone / "temp" for zone in zones]
    found = [each / 1e3 for each in map(_number, files) if each is not None]
    return max(found) if found else None


def _is(path: Path, names: tuple[str, ...]) -> bool:
    return _text(path).strip() in names


def _number(path: Path) -> float | None:
    text = _text(path).strip()
    return float(text) if re.fullmatch(r"-?\d+", text) else None


def _text(path: Path) -> str:
    """The file's text; nothing where it is not there, may not be read, or its sensor is asleep."""
    try:
        return path.read_text()
    except OSError:
        return ""
