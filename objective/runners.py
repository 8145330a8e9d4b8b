"""The runners that a sweep may name: what runs the networks, and at which precisions.

This table says what holds on every host. How a host makes a runner is in `prunefleet.agent.measure.runners.registry`,
which has the same names.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput

PRECISIONS = ("f32", "bf16", "f16", "int8")


@dataclass(frozen=True)
class RunnerKind:
    """What a sweep may ask of a runner.

    `energy`: the sources that see its device, the best first. `int8`: it takes the INT8 networks that NNCF makes.
    `remote`: it needs a network's files alone, so it also runs on a device elsewhere, which is sent no torch network.
    """

    energy: tuple[str, ...] = ()
    int8: bool = False
    remote: bool = False


RUNNERS: Mapping[str, RunnerKind] = {
    "openvino_cpu": RunnerKind(energy=("rapl", "tegrastats"), int8=True, remote=True),
    "openvino_gpu": RunnerKind(int8=True, remote=True),
    "openvino_npu": RunnerKind(int8=True, remote=True),
    "torch_cpu": RunnerKind(energy=("rapl", "tegrastats")),
    "torch_cuda": RunnerKind(energy=("nvml", "tegrastats")),
    "onnxruntime_cpu": RunnerKind(energy=("rapl", "tegrastats")),
    "onnxruntime_cuda": RunnerKind(energy=("nvml", "tegrastats")),
    "command": RunnerKind(remote=True),
}
DEFAULT = "openvino_cpu"
"""What runs the networks where a sweep names no runner."""
REMOTE = tuple(name for name, kind in RUNNERS.items() if kind.remote)
"""Runners that a device elsewhere may be asked for."""


def measured_by(runner: object, threads: object, energy: object = None, precision: object = "f32") -> None:
    """Raise `BadInput` for an unknown runner, energy source or precision, or one that does not go with the runner."""
    if runner not in RUNNERS:
        raise BadInput("measure.runner", runner, checks.choose(runner, RUNNERS, "write one of"))
    if precision not in PRECISIONS:
        raise BadInput("measure.precision", precision, checks.choose(precision, PRECISIONS, "write one of"))
    kind = RUNNERS[str(runner)]
    if precision == "int8" and not kind.int8:
        able = " or ".join(name for name, each in RUNNERS.items() if each.int8)
        raise BadInput("measure.precision", precision, f"write {able} for measure.runner")
    checks.whole("measure.threads", threads, low=1)
    if energy is not None and energy not in kind.energy:
        sources = " or ".join(kind.energy)
        remedy = f"write {sources}" if sources else f"leave it out: nothing tells the energy of {runner}"
        raise BadInput("measure.energy", energy, remedy)
