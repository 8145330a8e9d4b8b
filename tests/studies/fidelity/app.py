"""OpenVINO's benchmark_app beside our own measuring, as processes that share one core in short turns.

A virtual core is a third faster or slower for seconds together, as its neighbours come and go. Processes that run one
after the other see different seconds of it; where one at a time is let run, each for a moment, all see the same.
"""

import itertools
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from prunefleet.agent.measure.exported import Exported

from studies.fidelity import median

READY = re.compile(r"^ready$|^\[Step 10/11\]")
"""The line that tells of a loaded network, ours and the tool's."""
MOMENT_S = 0.15  # of running, before it is another's turn: several calls, for one of them is cut in two
BENCHMARK_APP = """
import sys
sys.modules["openvino_telemetry"] = None
from openvino.tools.benchmark.main import main
sys.exit(main())
"""
OPTIONS = {"d": "CPU", "hint": "none", "api": "sync", "nireq": "1", "nstreams": "1", "nthreads": "1"}
OPTIONS |= {"infer_precision": "f32"}


def medians(model: Exported, calls: int, seconds: float, seed: int) -> dict[str, float]:
    """Milliseconds of the same network three ways: here, by the tool (so many calls each), and in a sitting's turns."""
    here = [sys.executable, median.__file__]
    options = [word for name, value in {**OPTIONS, "niter": str(calls)}.items() for word in (f"-{name}", value)]
    printed = taking_turns(
        {
            "ours_ms": [*here, "slot", str(model.xml), "0", str(calls)],
            "theirs_ms": [sys.executable, "-c", BENCHMARK_APP, "-m", str(model.xml), *options],
            "in_turns_ms": [*here, "sitting", str(model.xml), str(seed), str(3 * seconds)],
        }
    )
    return {way: told(text) if way == "theirs_ms" else float(text) for way, text in printed.items()}


def told(printed: str) -> float:
    """The median in milliseconds that the tool prints: its JSON has two decimals of a millisecond, however short."""
    found = re.search(r"Median:\s+([0-9.]+) (ms|us)", printed)
    assert found, printed
    return float(found.group(1)) / (1 if found.group(2) == "ms" else 1000)


def taking_turns(commands: Mapping[str, Sequence[str]], moment_s: float = MOMENT_S) -> dict[str, str]:
    """What each program prints once it is ready; from then on one at a time runs for a moment, until all have ended."""
    running: dict[str, subprocess.Popen[str]] = {}
    try:
        for name, argv in commands.items():
            running[name] = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
            _stopped_when_ready(running[name])
        for process in itertools.cycle(running.values()):
            if all(each.poll() is not None for each in running.values()):
                break
            _let_run(process, moment_s)
        printed = {name: process.communicate()[0] for name, process in running.items()}
        assert all(each.returncode == 0 for each in running.values()), printed
        return printed
    finally:
        for process in running.values():
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


def _stopped_when_ready(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert any(READY.match(line) for line in process.stdout), "it ended before it was ready"
    process.send_signal(signal.SIGSTOP)


def _let_run(process: "subprocess.Popen[str]", moment_s: float) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGCONT)
    try:
        process.wait(moment_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGSTOP)
