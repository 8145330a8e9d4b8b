"""How this host is: room, processor, other work, steadiness. Files are those of proc(5) and sysfs, below `root`.

Kernel's documentation: cpufreq (scaling_governor, scaling_max_freq), thermal throttling counters, pressure and steal
time in /proc/stat.
"""

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from prunefleet.agent.health.finding import PROBLEM, WARNING, Finding, graded
from prunefleet.agent.host.cache_files import cache_folder
from prunefleet.agent.measure.conditions import ROOT, conditions

GIB = 2**30
LEAST_MEMORY_GB, GOOD_MEMORY_GB = 0.5, 2.0
LEAST_DISK_GB, GOOD_DISK_GB = 0.5, 3.0
HOT_CELSIUS = 85.0
BUSY_SHARE, STOLEN_SHARE, UNSTEADY = 0.25, 0.02, 1.10
LOOK_S = 1.0
SAVING = ("powersave", "ondemand", "conservative", "schedutil")


def host(root: Path = ROOT, look_s: float = LOOK_S) -> Iterator[Finding]:
    """All that is looked at; `look_s` seconds go into watching the processor."""
    yield system()
    yield memory(root)
    yield from disks()
    yield processor(root)
    yield from clock(root)
    yield from others(root, look_s)
    yield steadiness(look_s)


def system() -> Finding:
    """Python and the C library: wheels of OpenVINO name the least glibc that they run with."""
    library = " ".join(platform.libc_ver()) or "an unknown C library"
    found = (
        f"Python {platform.python_version()}, {library}, {platform.machine()}, {platform.system()} {platform.release()}"
    )
    remedy = "prunefleet runs on Linux: its locks and its process handling need it"
    return graded("system", found, (sys.platform != "linux", PROBLEM, remedy))


def memory(root: Path) -> Finding:
    """Memory that a program could have now."""
    kib = dict(line.split(":", 1) for line in _lines(root / "proc/meminfo") if ":" in line)
    free, whole = (int(kib[key].split()[0]) * 1024 / GIB if key in kib else 0.0 for key in ("MemAvailable", "MemTotal"))
    return graded(
        "memory",
        f"{free:.1f} of {whole:.1f} GiB available",
        (free < LEAST_MEMORY_GB, PROBLEM, "end other programs: a measurement needs half a GiB, a trial two"),
        (free < GOOD_MEMORY_GB, WARNING, "end other programs before trials run here: one takes about two GiB"),
    )


def disks(usage: Callable[[Path], tuple[int, int, int]] = shutil.disk_usage) -> Iterator[Finding]:
    """Room where networks, samples and the client's files go; folders on one disk are told once."""
    seen: set[int] = set()
    for name, path in (
        ("cache", cache_folder()),
        ("temporary files", Path(tempfile.gettempdir())),
        ("here", Path.cwd()),
    ):
        there = next(each for each in (path, *path.parents) if each.exists())
        if (disk := there.stat().st_dev) in seen:
            continue
        seen.add(disk)
        free = usage(there)[2] / GIB
        yield graded(
            f"disk ({name})",
            f"{free:.1f} GiB free for {path}",
            (not os.access(there, os.W_OK), PROBLEM, "this user may not write there: change its owner"),
            (
                free < LEAST_DISK_GB,
                PROBLEM,
                "make room: `prunefleet cache clear`, or move it (PRUNEFLEET_CACHE, TMPDIR)",
            ),
            (
                free < GOOD_DISK_GB,
                WARNING,
                "make room, or set PRUNEFLEET_CACHE_MB below the 10240 that the cache may take",
            ),
        )


def processor(root: Path) -> Finding:
    """Its cores, and who is busy on them."""
    from prunefleet.agent.measure.device import cpu_name, usable_cores

    cores, load = usable_cores(), conditions(root).load or 0.0
    busy = load > max(BUSY_SHARE * cores, BUSY_SHARE)
    remedy = "other work makes measurements noisy: end it, or measure when it has ended"
    return graded("processor", f"{cpu_name()}, {cores} cores, load {load:.1f}", (busy, WARNING, remedy))


def clock(root: Path) -> Iterator[Finding]:
    """What holds the processor's clock down; nothing where the kernel tells nothing."""
    base = root / "sys/devices/system/cpu/cpu0"
    if governor := _text(base / "cpufreq/scaling_governor"):
        # Where there is a preference the processor chooses its clock itself, whatever the governor is called.
        chooses = (base / "cpufreq/energy_performance_preference").exists()
        saves = governor in SAVING and not chooses
        remedy = "the clock follows the load and single calls run slow: `sudo cpupower frequency-set -g performance`"
        yield graded("governor", governor, (saves, WARNING, remedy))
    highest, allowed = (_number(base / f"cpufreq/{name}") for name in ("cpuinfo_max_freq", "scaling_max_freq"))
    if highest and allowed:
        remedy = f"something limits it to {allowed / 1e6:.1f} GHz: look at scaling_max_freq and the power supply"
        limited = allowed < 0.95 * highest
        yield graded("clock limit", f"{allowed / 1e6:.1f} of {highest / 1e6:.1f} GHz", (limited, WARNING, remedy))
    throttled = _number(base / "thermal_throttle/core_throttle_count")
    degrees = conditions(root).celsius
    if degrees is not None or throttled is not None:
        found = f"{degrees:.0f} °C" if degrees is not None else "no sensor"
        found += f", throttled {throttled:.0f} times since boot" if throttled else ""
        hot = degrees is not None and degrees >= HOT_CELSIUS
        yield graded(
            "temperature",
            found,
            (hot, WARNING, "it slows itself down: improve the cooling, or pause between measurements"),
            (bool(throttled), WARNING, "it has slowed itself down before: improve the cooling if the number grows"),
        )


def others(root: Path, look_s: float) -> Iterator[Finding]:
    """What a virtual machine's host took from it, and who measures now."""
    before = _steal(root)
    time.sleep(look_s / 2 if before else 0)
    after = _steal(root)
    if before and after and after[1] > before[1]:
        share = (after[0] - before[0]) / (after[1] - before[1])
        remedy = "the machine below this virtual one is shared: measurements are noisy while it is busy; prefer a board"
        yield graded("stolen time", f"{share:.1%}", (share > STOLEN_SHARE, WARNING, remedy))
    from prunefleet.agent.measure.lock import holder

    if who := holder():
        yield Finding("lock", "ok", f"process {who.get('pid')} measures {who.get('device', 'something')} now")


def steadiness(look_s: float) -> Finding:
    """How evenly the processor runs the same small work: the median over the 10th percentile of its times."""
    numbers, times = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32), []
    until = time.perf_counter() + look_s
    while time.perf_counter() < until:
        began = time.perf_counter()
        for _ in range(50):
            numbers @ numbers
        times.append(time.perf_counter() - began)
    spread = float(np.median(times) / np.percentile(times, 10))
    remedy = "other work or a changing clock disturbs it: measurements take longer here, and their intervals are wider"
    return graded("steadiness", f"median {spread:.2f} times the 10th percentile", (spread > UNSTEADY, WARNING, remedy))


def _steal(root: Path) -> tuple[int, int] | None:
    """Ticks stolen and in all since boot."""
    words = next((line.split() for line in _lines(root / "proc/stat") if line.startswith("cpu ")), [])
    ticks = [int(each) for each in words[1:9]]
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else None


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()


def _number(path: Path) -> float | None:
    text = _text(path)
    return float(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    """The file's text; nothing where it is not there or may not be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
