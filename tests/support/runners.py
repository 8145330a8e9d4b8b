"""Every kind of runner on each device and precision, or a skip that says what this host lacks."""

import sys

import pytest
import torch

from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.openvino_core import openvino
from prunefleet.agent.measure.runners.base import (
    LoadedNetwork,
    OpenVINORunner,
    Runner,
    SampledNetwork,
    supported_precisions,
)
from prunefleet.agent.measure.runners.command import CommandRunner
from prunefleet.agent.measure.runners.registry import runner_for
from prunefleet.agent.measure.runners.torch import TorchRunner

from support.paths import TESTS

CLOSE = {"f32": 1e-4, "bf16": 0.03, "f16": 0.01}


def openvino_on(device: str, precision: str) -> Runner:
    """The runner, or a skip that says what this host lacks."""
    if device not in openvino.Core().available_devices:
        pytest.skip(f"OpenVINO has no {device} on this host")
    if precision not in ("default", *supported_precisions(device)):
        pytest.skip(f"{device} of this host does not compute in {precision}")
    return OpenVINORunner(device, precision)


def torch_on(device: str, precision: str) -> Runner:
    """The runner, or a skip that says what this host lacks."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch has no CUDA device on this host")
    return TorchRunner(device, precision)


def onnx_on(device: str, precision: str) -> Runner:
    """The runner, or a skip that says what this host lacks."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")
    if device == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("ONNX Runtime has no CUDA provider on this host")
    return runner_for(f"onnxruntime_{device}", precision)


def command(device: str, precision: str) -> Runner:
    """A program that times an IR."""
    program = TESTS / "support" / "program.py"
    arguments = "--ir {ir} --calls {calls} --warm-up {warm_up} --precision {precision} --threads {threads}"
    return CommandRunner(f"{sys.executable} {program} {arguments} --what {{what}}", precision)


def loaded(runner: Runner, model: Exported) -> LoadedNetwork:
    """A loaded network that can be asked for outputs, or a skip."""
    network = runner.load(model)
    if isinstance(network, SampledNetwork):
        pytest.skip("a program only times a network")
    return network


PRECISIONS = ("f32", "bf16", "f16", "default")
CASES = [(openvino_on, "CPU", precision) for precision in PRECISIONS]
CASES += [(torch_on, "cpu", precision) for precision in PRECISIONS]
CASES += [(openvino_on, "GPU", "default"), (openvino_on, "NPU", "default"), (torch_on, "cuda", "f32")]
CASES += [(onnx_on, "cpu", "f32"), (onnx_on, "cuda", "f32"), (command, "command", "f32")]
NAMES = [f"{make.__name__}-{device}-{precision}" for make, device, precision in CASES]
