"""What the kernel says of a process: processor time, memory, open files."""

import os
import platform
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Processor seconds that a process has used, in user and kernel mode, its ended children's with it."""
    return sum(int(_stat(pid)[place]) for place in (11, 12, 13, 14)) * TICK


def tree_seconds(pid: int) -> float:
    """Processor seconds of a process and of all below it."""
    return cpu_seconds(pid) + sum(tree_seconds(child) for child in children(pid))


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                found += [int(path.name)] if int(_stat(int(path.name))[1]) == pid else []
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def memory_mb(pid: int, what: str = "VmRSS") -> float:
    """Resident memory in MB now (`VmRSS`) or at most so far (`VmHWM`)."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


def open_files(pid: int) -> int:
    """How many file descriptors a process holds."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    return {"cpu": name, "cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
