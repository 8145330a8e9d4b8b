"""Processes of benches: those that work side by side end with their bench, those that take turns run one at a time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studies.fidelity.app import taking_turns, told
from support.side_by_side import side_by_side
from support.wait import wait_for

BENCH = """
import os, sys
from support.side_by_side import side_by_side

if __name__ == "__main__":
    with side_by_side(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        sys.stdin.read()
"""
PROGRAM = """
import time
print("loading", flush=True)
print("ready", flush=True)
began, end = time.monotonic(), time.process_time() + 0.2
while time.process_time() < end:
    pass
print(began, time.monotonic(), flush=True)
"""


def test_work_is_done_in_other_processes() -> None:
    """What is submitted comes back from processes of their own."""
    with side_by_side(1) as pool:
        assert pool.submit(os.getpid).result() != os.getpid()


def test_processes_of_a_bench_that_was_killed_end(tmp_path: Path) -> None:
    """Nobody is left to tell them, and each would hold a gigabyte."""
    script = tmp_path / "bench.py"
    script.write_text(BENCH)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    bench = subprocess.Popen([sys.executable, script], text=True, env=env, **pipes)  # type: ignore[call-overload]
    worker = int(bench.stdout.readline())
    assert _runs(worker)
    bench.send_signal(signal.SIGKILL)
    wait_for(lambda: not _runs(worker))
    bench.communicate()


def _runs(pid: int) -> bool:
    """Whether there is such a process, other than one that has ended and that nobody has asked about."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_programs_take_turns_from_when_they_are_ready() -> None:
    """Each runs for a moment, then stands still for the other's; what it prints after it is ready comes back."""
    programs = {name: [sys.executable, "-c", PROGRAM] for name in ("one", "other")}
    began = time.monotonic()
    printed = {name: tuple(map(float, text.split())) for name, text in taking_turns(programs, 0.05).items()}
    assert set(printed) == set(programs)
    assert all(began < start < end for start, end in printed.values())
    (_, first_end), (other_start, _) = printed["one"], printed["other"]
    assert other_start < first_end, "neither waited for the end of the other"


def test_a_program_that_fails_ends_the_turns() -> None:
    """One that ends with a fault, and one that ends before it is ready."""
    with pytest.raises(AssertionError, match="broken"):
        taking_turns({"broken": [sys.executable, "-c", "print('ready', flush=True); raise SystemExit(3)"]})
    with pytest.raises(AssertionError, match="it ended before it was ready"):
        taking_turns({"silent": [sys.executable, "-c", "print('loading')"]})


def test_the_tools_median_is_read_in_milliseconds() -> None:
    """Whichever unit it prints."""
    assert told("[ INFO ]    Median:        1.83 ms") == 1.83
    assert told("[ INFO ]    Median:        830.5 us") == pytest.approx(0.8305)
