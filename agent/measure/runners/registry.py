"""How this host makes the runner that a sweep's `measure.runner` names.

A new runner is a module beside this one, a maker in `MAKERS`, and an entry of `prunefleet.objective.runners.RUNNERS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from prunefleet.agent.measure.runners.base import OpenVINORunner, Runner
from prunefleet.agent.measure.runners.command import CommandRunner
from prunefleet.objective import checks
from prunefleet.objective.errors import BadInput
from prunefleet.objective.runners import DEFAULT, measured_by


def runner_for(name: str, precision: str = "f32", threads: int = 1) -> Runner:
    """The runner called `name`, such as "openvino_cpu".

    Raises `BadInput` for an unknown name, a device or package that this host has not, or a precision that the device
    has not.
    """
    if name not in MAKERS:
        raise BadInput("measure.runner", name, checks.choose(name, MAKERS, "write one of"))
    return MAKERS[name](precision, threads)


def runner_at(precision: str, name: str = DEFAULT, threads: int = 1) -> Runner:
    """The runner called `name` for networks that ship at `precision`.

    It computes in f32 around an INT8 network's integers. Raises `BadInput` for INT8 elsewhere than in OpenVINO, and as
    `runner_for` does.
    """
    measured_by(name, threads, precision=precision)
    return runner_for(name, "f32" if precision == "int8" else precision, threads)


def at_default(runner: Runner) -> Runner:
    """The same runner with the precision left to the device."""
    made: Any = runner
    changed: Runner = replace(made, precision="default")
    return changed


def kind(runner: Runner) -> str:
    """What kind of device it measures, as `fingerprint` wants it: "CPU", "GPU", "NPU", "CUDA" or "COMMAND"."""
    return runner.device.upper()


def _onnx(device: str) -> Callable[[str, int], Runner]:
    def make(precision: str, threads: int) -> Runner:
        try:
            from prunefleet.agent.measure.runners.onnx import ONNXRunner
        except ImportError as error:
            remedy = f"install ONNX Runtime: pip install 'prunefleet[onnx]' ({error})"
            raise BadInput("measure.runner", f"onnxruntime_{device}", remedy) from None
        return ONNXRunner(device, precision, threads)

    return make


def _openvino(device: str) -> Callable[[str, int], Runner]:
    return lambda precision, threads: OpenVINORunner(device, precision, threads)


def _torch(device: str) -> Callable[[str, int], Runner]:
    def make(precision: str, threads: int) -> Runner:
        try:
            from prunefleet.agent.measure.runners.torch import TorchRunner
        except ImportError as error:
            remedy = f"install torch: pip install 'prunefleet[trial]' ({error})"
            raise BadInput("measure.runner", f"torch_{device}", remedy) from None
        return TorchRunner(device, precision, threads)

    return make


MAKERS: Mapping[str, Callable[[str, int], Runner]] = {
    "openvino_cpu": _openvino("CPU"),
    "openvino_gpu": _openvino("GPU"),
    "openvino_npu": _openvino("NPU"),
    "torch_cpu": _torch("cpu"),
    "torch_cuda": _torch("cuda"),
    "onnxruntime_cpu": _onnx("cpu"),
    "onnxruntime_cuda": _onnx("cuda"),
    "command": CommandRunner.of_host,
}
"""Makes a runner of a precision and a number of threads; the names are those of `RUNNERS`."""
