"""A program of the user's as a runner: it receives the network as ONNX or IR, times it, and prints samples as JSON.

For whatever has no library here: TensorRT's `trtexec` (trtexec.py beside this), a board reached by ssh, a simulator.
Which program that is belongs to the host, not to the sweep: PRUNEFLEET_MEASURE_COMMAND. A sweep can ask for it, and
cannot choose what is run. docs/measurement.md has its contract.
"""

import json
import math
import os
import shlex
import string
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.intervals import Samples
from prunefleet.agent.measure.runners.base import WARM_UP_CALLS, Array, Arrays
from prunefleet.agent.measure.runners.onnx_file import onnx_file
from prunefleet.objective import old_names
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Failure, FailureKind, TrialFailed

VARIABLE = "PRUNEFLEET_MEASURE_COMMAND"
EXAMPLE = (
    "python -m prunefleet.agent.measure.runners.trtexec"
    " --onnx {onnx} --calls {calls} --precision {precision} --what {what}"
)
FILES, ASKED = ("onnx", "ir"), ("calls", "warm_up", "precision", "threads", "what")
PATIENCE_S = 900.0  # an engine may be built first


@dataclass(frozen=True)
class CommandRunner:
    """`command` with {onnx} or {ir}, and {calls}, {warm_up}, {precision}, {threads}, {what} filled in; no shell.

    Raises `BadInput` where the command is missing or does not say where the network goes.
    """

    command: str
    precision: str = "f32"
    threads: int = 1
    device: str = "command"

    def __post_init__(self) -> None:
        known = (*FILES, *ASKED)
        try:
            words = [word for _, word, _, _ in string.Formatter().parse(" ".join(shlex.split(self.command)))]
        except ValueError as error:
            raise BadInput(VARIABLE, self.command, f"mend the command: {error}") from None
        for word in words:
            if word is not None and word not in known:
                raise BadInput(VARIABLE, self.command, f"use {', '.join('{' + each + '}' for each in known)}")
        if not set(FILES) & set(words):
            raise BadInput(VARIABLE, self.command, f"write a command with {{onnx}} or {{ir}}, such as {EXAMPLE}")

    @classmethod
    def of_host(cls, precision: str = "f32", threads: int = 1) -> "CommandRunner":
        """The runner that this host's environment describes. Raises `BadInput` where it describes none."""
        return cls(old_names.translated(os.environ.get(VARIABLE, "")), precision, threads)

    @property
    def times_throughput(self) -> bool:
        """Whether the command can be asked for a throughput."""
        return "{what}" in self.command

    def settings(self) -> dict[str, str]:
        """The program with its arguments as the host has them."""
        return {"runner": "command", "command": self.command, "threads": str(self.threads)}

    def load(self, model: Exported) -> "CommandNetwork":
        """The network's files are written; the program loads them for each slot anew."""
        files = {"ir": model.xml} | ({"onnx": onnx_file(model)} if "{onnx}" in self.command else {})
        return CommandNetwork({name: str(path) for name, path in files.items()}, self)

    def ask(self, files: Mapping[str, str], calls: int, what: str) -> dict[str, Any]:
        """Run the program once; raises `TrialFailed` with kind DEVICE where it fails or says no JSON."""
        values = {"calls": calls, "warm_up": WARM_UP_CALLS, "precision": self.precision, "threads": self.threads}
        argv = [word.format(**files, **values, what=what) for word in shlex.split(self.command)]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as error:
            raise _failed(f"{argv[0]} took more than {PATIENCE_S:.0f} s") from error
        except OSError as error:
            raise _failed(f"{argv[0]} cannot be started: {error.strerror}") from error
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise _failed(f"{argv[0]} ended with {done.returncode}: {' '.join(last)[:200]}")
        return _document(argv[0], done.stdout)


def _document(program: str, printed: str) -> dict[str, Any]:
    """The JSON object on the last line that was printed."""
    last = (printed.strip().splitlines() or [""])[-1]
    try:
        found = json.loads(last)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _failed(f"{program} printed {last[:80]!r} last; a line of JSON was expected")
    return found


class CommandNetwork:
    """A network that a program times."""

    def __init__(self, files: Mapping[str, str], runner: CommandRunner) -> None:
        self._files, self._runner = files, runner
        self.precision = runner.precision

    def samples(self, calls: int) -> Samples:
        """Milliseconds as the program printed them, `samples_ms`; it may say which `precision` it chose."""
        document = self._runner.ask(self._files, calls, "latency")
        found = document.get("samples_ms")
        if not isinstance(found, list) or len(found) < calls or not all(map(_is_time, found)):
            count = len(found) if isinstance(found, list) else 0
            raise _failed(f"samples_ms: got {count} entries; {calls} numbers above 0 were asked for")
        self.precision = str(document.get("precision", self.precision))
        return np.array(found, np.float64)

    def throughput(self, seconds: float) -> float:
        """As the program printed it, `throughput_fps`; 0 (unknown) where it is not asked by {what}, or does not say."""
        if not self._runner.times_throughput:
            return 0.0
        found = self._runner.ask(self._files, WARM_UP_CALLS, "throughput").get("throughput_fps", 0.0)
        return float(found) if _is_time(found) else 0.0

    def run(self) -> float:
        """One inference; milliseconds as the program tells them."""
        return float(self.samples(1)[0])

    def infer(self, batch: Array) -> Arrays:
        """A program only times."""
        raise NotImplementedError("a program only times a network: evaluate it with another runner")


def _is_time(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value) and value > 0


def _failed(message: str) -> TrialFailed:
    return TrialFailed(Failure(FailureKind.DEVICE, "measure", message))
