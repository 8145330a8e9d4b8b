"""Counters of energy: RAPL of the processor, NVML of an NVIDIA GPU, tegrastats of a Jetson board.

Sources: the kernel's Documentation/power/powercap/powercap.rst (RAPL), NVIDIA's NVML API reference
(nvmlDeviceGetTotalEnergyConsumption), and the Jetson Linux developer guide (tegrastats).
"""

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
PACKAGE = re.compile(r"package-\d+")
TOTAL_RAILS = ("VDD_IN", "POM_5V_IN")
"""Rails of a Jetson that feed the whole module; boards without one have a rail for each part."""
RAIL = re.compile(r"(?<!\S)([A-Z][A-Z0-9_]*) (\d+)(?:mW)?/\d+(?:mW)?(?!\S)")
FIRST_LINE_S, END_S = 5.0, 2.0


@dataclass(frozen=True)
class RAPLMeter:
    """The processor's packages, all of them, through `root`; their counters wrap, which is made up for."""

    root: Path = POWERCAP
    source: str = "rapl"
    step_s: float = 0.001

    @contextmanager
    def reading(self) -> Iterator[Callable[[], float]]:
        """Joules since now. Raises `OSError` where there is no package or its counter may not be read."""
        zones = [path.parent for path in sorted(self.root.glob("intel-rapl:*/name")) if _is_package(path)]
        if not zones:
            raise FileNotFoundError(f"{self.root} has no package to read")
        ranges = [_whole(zone / "max_energy_range_uj") for zone in zones]
        last, total = [_whole(zone / "energy_uj") for zone in zones], 0

        def joules() -> float:
            nonlocal last, total
            now = [_whole(zone / "energy_uj") for zone in zones]
            total += sum((new - old) % (most + 1) for new, old, most in zip(now, last, ranges, strict=True))
            last = now
            return total / 1e6

        yield joules


def _is_package(name: Path) -> bool:
    """The zone is a package: its sub-zones (core, dram) are counted in it or vary between processors."""
    with suppress(OSError):
        return PACKAGE.fullmatch(name.read_text().strip()) is not None
    return False


def _whole(path: Path) -> int:
    text = path.read_text().strip()
    if not text.isdecimal():
        raise OSError(f"{path} holds {text!r}, no count")
    return int(text)


@dataclass(frozen=True)
class NVMLMeter:
    """The GPU that torch computes on (Volta and newer), through nvidia-ml-py."""

    source: str = "nvml"
    step_s: float = 0.1

    @contextmanager
    def reading(self) -> Iterator[Callable[[], float]]:
        """Joules since the driver was loaded. Raises `OSError` where package, driver or counter are missing."""
        try:
            import prunefleet.agent.measure.energy.nvml as nvml
        except ImportError as error:
            raise OSError("nvidia-ml-py is missing: pip install 'prunefleet[energy]'") from error
        with nvml.gpu(_uuid()) as millijoules:
            yield lambda: millijoules() / 1e3


def _uuid() -> str | None:
    """The GPU that torch calls the first, which environment variables may have chosen; None where it has none."""
    try:
        import torch
    except ImportError:  # a host that only measures
        return None
    return f"GPU-{torch.cuda.get_device_properties(0).uuid}" if torch.cuda.is_available() else None


@dataclass(frozen=True)
class TegrastatsMeter:
    """A Jetson board: the power that `program` prints every 0.1 s, added up over time."""

    program: str = "tegrastats"
    source: str = "tegrastats"
    step_s: float = 0.1

    @contextmanager
    def reading(self) -> Iterator[Callable[[], float]]:
        """Joules since now. Raises `OSError` where the program is missing, ends, or prints no power."""
        path = shutil.which(self.program)
        if path is None:
            raise FileNotFoundError(f"{self.program} is not there")
        argv = [path, "--interval", str(round(1e3 * self.step_s))]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        integral = Integral()
        reader = threading.Thread(target=_follow, args=(process, integral), daemon=True)
        reader.start()
        try:
            integral.wait(FIRST_LINE_S)
            yield integral.joules
        finally:
            _end(process)
            reader.join(END_S)


class Integral:
    """Power over time: readings of watts, each taken to last until the next."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock, self._first = clock, threading.Lock(), threading.Event()
        self._joules, self._watts, self._since = 0.0, 0.0, 0.0
        self._ended = False

    def add(self, watts: float) -> None:
        """Power is `watts` from now on."""
        with self._lock:
            now = self._clock()
            self._joules, self._watts, self._since = self._until(now), watts, now
            self._first.set()

    def end(self) -> None:
        """No reading will follow."""
        self._ended = True
        self._first.set()

    def wait(self, seconds: float) -> None:
        """Return with the first reading. Raises `OSError` where there is none within that time."""
        if not self._first.wait(seconds) or self._ended:
            raise OSError("no power was read")

    def joules(self) -> float:
        """Joules since the first reading. Raises `OSError` once readings have ended."""
        if self._ended:
            raise OSError("readings of power have ended")
        with self._lock:
            return self._until(self._clock())

    def _until(self, now: float) -> float:
        return self._joules + self._watts * (now - self._since)


def _follow(process: "subprocess.Popen[str]", integral: Integral) -> None:
    for line in process.stdout or ():
        power = watts(line)
        if power is not None:
            integral.add(power)
    integral.end()


def watts(line: str) -> float | None:
    """Power in a line of tegrastats: of the module's input rail, else of all rails together; None without rails."""
    rails = {name: int(milliwatts) for name, milliwatts in RAIL.findall(line)}
    whole = [rails[name] for name in TOTAL_RAILS if name in rails]
    return (whole[0] if whole else sum(rails.values())) / 1e3 if rails else None


def _end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(END_S)
    if process.stdout:
        process.stdout.close()
