"""Pauses of a host with a full disk or a hot processor: no trial begins there until it is well again.

What runs meanwhile is left to its end. Files are those of sysfs below `root` (the kernel's documentation of thermal
zones and of hwmon); where a host tells nothing it never pauses for heat.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput

ROOT = Path("/")
GIB = 2**30
LEAST_FREE_GB, ENOUGH_FREE_GB = 0.5, 1.0
HOTTEST_CELSIUS = 100.0
BELOW_CRITICAL, COOLER = 5.0, 10.0
"""Degrees: a host pauses that much below what its processor calls critical, and goes on that much cooler."""
SANE = (60.0, 150.0)  # firmware tells limits of 20 degrees, and of 255
VARIABLE = "PRUNEFLEET_HOT_CELSIUS"
LOOK_EVERY = 5.0  # seconds
CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
CPU_ZONES = re.compile(r"(?i)cpu|soc|x86_pkg")

Usage = Callable[[Path], tuple[int, int, int]]


@dataclass(frozen=True)
class Sensor:
    """A temperature, and the limit from which on its host rests, both in degrees Celsius."""

    name: str
    celsius: float
    limit: float


@dataclass(frozen=True)
class Disk:
    """Free bytes where `folder` is."""

    folder: Path
    free: int


class Pauses:
    """Why this host starts no trial now, by what is the matter; `folders` are those that trials write to."""

    def __init__(self, folders: Sequence[Path], root: Path = ROOT, usage: Usage = shutil.disk_usage) -> None:
        self._folders, self._root, self._usage = (*folders, Path(tempfile.gettempdir())), root, usage
        self._limit = own_limit()
        self._next = 0.0
        self.reasons: Mapping[str, str] = {}

    def look(self, now: float) -> str | None:
        """Look again every few seconds; returns what to tell people, where the host begins to pause or goes on."""
        if now < self._next:
            return None
        self._next, before = now + LOOK_EVERY, self.reasons
        self.reasons = unwell(disks(self._folders, self._usage), sensors(self._root, self._limit), before)
        if new := [text for what, text in self.reasons.items() if what not in before]:
            return f"This host starts no new trial, and what runs goes on: {'; '.join(new)}."
        return "This host is well again: its agents go on." if before and not self.reasons else None


def unwell(room: Iterable[Disk], heat: Iterable[Sensor], before: Mapping[str, str]) -> dict[str, str]:
    """What keeps a host from starting trials, `disk` and `heat`, each in words that say what would end it.

    What it paused for `before` must be better by a margin, so that it does not come and go.
    """
    found = {}
    least = ENOUGH_FREE_GB if "disk" in before else LEAST_FREE_GB
    if full := [disk for disk in room if disk.free < least * GIB]:
        tight = min(full, key=lambda disk: disk.free)
        told = f"{tight.free / GIB:.1f} GiB are free for {tight.folder}"
        found["disk"] = f"{told}, at least {least:g} are needed; make room, such as by `prunefleet cache clear`"
    margin = COOLER if "heat" in before else 0.0
    if hot := [sensor for sensor in heat if sensor.celsius >= sensor.limit - margin]:
        worst = max(hot, key=lambda sensor: sensor.celsius - sensor.limit)
        told = f"{worst.name} has {worst.celsius:.0f} °C, its limit is {worst.limit:g} °C ({VARIABLE})"
        found["heat"] = f"{told}; it goes on below {worst.limit - COOLER:g} °C: improve the cooling"
    return found


def disks(folders: Sequence[Path], usage: Usage = shutil.disk_usage) -> Iterator[Disk]:
    """Room for each of the folders, or where it will be made; those on one disk count once."""
    seen = set()
    for folder in folders:
        there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
        try:
            if (disk := there.stat().st_dev) not in seen:
                seen.add(disk)
                yield Disk(folder, usage(there)[2])
        except OSError:  # a share that is gone says nothing of this host's room
            continue


def sensors(root: Path = ROOT, limit: float | None = None) -> Iterator[Sensor]:
    """The processor's sensors and thermal zones that can be read, each with its own limit unless `limit` is given."""
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        name, celsius, told = _text(zone / "type"), _degrees(zone / "temp"), list(_trips(zone))
        if celsius is not None and (told or CPU_ZONES.search(name)):
            yield Sensor(name or zone.name, celsius, limit or min([HOTTEST_CELSIUS, *told]))
    for monitor in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if (name := _text(monitor / "name")) not in CPU_SENSORS:
            continue
        for file in sorted(monitor.glob("temp*_input")):
            critical = _degrees(file.with_name(file.name.replace("_input", "_crit")))
            told = [critical - BELOW_CRITICAL] if critical and SANE[0] <= critical <= SANE[1] else []
            if (celsius := _degrees(file)) is not None:
                yield Sensor(name, celsius, limit or min([HOTTEST_CELSIUS, *told]))


def _trips(zone: Path) -> Iterator[float]:
    """From which temperature on a zone is too hot, as its firmware says: its hot and its critical trip points."""
    margins = {"hot": 0.0, "critical": BELOW_CRITICAL}
    for file in sorted(zone.glob("trip_point_*_type")):
        margin = margins.get(_text(file))
        degrees = _degrees(file.with_name(file.name.replace("_type", "_temp")))
        if margin is not None and degrees is not None and SANE[0] <= degrees <= SANE[1]:
            yield degrees - margin


def own_limit() -> float | None:
    """The limit that the user gives in place of the processor's: PRUNEFLEET_HOT_CELSIUS. Raises `BadInput`."""
    asked = os.environ.get(VARIABLE)
    try:
        return checks.positive(VARIABLE, float(asked)) if asked else None
    except ValueError:
        raise BadInput(VARIABLE, asked, "give degrees such as 95") from None


def _degrees(path: Path) -> float | None:
    """Files have thousandths of a degree."""
    text = _text(path)
    return float(text) / 1e3 if re.fullmatch(r"-?\d+", text) else None


def _text(path: Path) -> str:
    """The file's text; nothing where it is not there, may not be read, or its sensor is asleep."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
