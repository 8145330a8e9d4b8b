"""One suite that every runner passes, on each device and precision that this host has; the rest skip with a reason."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from prunefleet.agent.measure.export import export
from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.openvino_core import openvino
from prunefleet.agent.measure.rounds import slot, warm_up
from prunefleet.agent.measure.runners.base import (
    LoadedNetwork,
    OpenVINORunner,
    Runner,
    SampledNetwork,
    clocked,
    supported_precisions,
)
from prunefleet.agent.measure.runners.command import CommandRunner
from prunefleet.agent.measure.runners.deployed import Deployed
from prunefleet.agent.measure.runners.onnx_file import onnx_file
from prunefleet.agent.measure.runners.registry import at_default, kind, runner_for
from prunefleet.agent.measure.runners.torch import TorchRunner, without_tf32
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import FailureKind, TrialFailed

from support.networks import Residual
from support.paths import TESTS

IMAGES = torch.randn(4, 1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
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


PRECISIONS = ("f32", "bf16", "default")
CASES = [(openvino_on, "CPU", precision) for precision in PRECISIONS]
CASES += [(torch_on, "cpu", precision) for precision in PRECISIONS]
CASES += [(openvino_on, "GPU", "default"), (openvino_on, "NPU", "default"), (torch_on, "cuda", "f32")]
CASES += [(onnx_on, "cpu", "f32"), (onnx_on, "cuda", "f32"), (command, "command", "f32")]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A small residual network."""
    return export(Residual(16, (8,)).eval(), IMAGES[0], tmp_path_factory.mktemp("runners"))


@pytest.fixture(params=CASES, ids=[f"{make.__name__}-{device}-{precision}" for make, device, precision in CASES])
def runner(request: pytest.FixtureRequest) -> Runner:
    """Every runner in turn."""
    make: Callable[[str, str], Runner]
    make, device, precision = request.param
    return make(device, precision)


def test_it_computes_what_torch_computes(runner: Runner, exported: Exported) -> None:
    """On several inputs, to the accuracy of the precision that the network says it computes in."""
    network = loaded(runner, exported)
    for image in IMAGES:
        with torch.no_grad():
            expected = exported.network(image).numpy()
        got = network.infer(image.numpy())
        assert got.shape == expected.shape and got.dtype == np.float32
        assert np.abs(got - expected).max() <= CLOSE[network.precision] * np.abs(expected).max()


def test_a_deployed_network_takes_batches_of_any_size(runner: Runner, exported: Exported) -> None:
    """It gives for a batch what the device gives for each input alone, so that a task can evaluate it."""
    network = loaded(runner, exported)
    images = IMAGES.flatten(0, 1)[:3]
    expected = np.concatenate([network.infer(image[None].numpy()) for image in images])
    assert np.array_equal(Deployed(network, exported.input_shape)(images).numpy(), expected)


def test_it_can_be_timed(runner: Runner, exported: Exported) -> None:
    """After a warm-up that says how many calls fill a slot: as many times above 0 as were asked for, or more."""
    network = runner.load(exported)
    length = warm_up(network)
    calls = slot(network, length)
    assert length >= 1 and len(calls) >= length and (calls > 0).all() and np.isfinite(calls).all()


def test_it_says_how_it_runs(runner: Runner) -> None:
    """By the name that a sweep gives it, with what else a latency depends on, all as text."""
    settings = runner.settings()
    assert settings["runner"] == "command" or runner_for(settings["runner"], runner.precision).settings() == settings
    assert all(isinstance(value, str) for value in settings.values()) and kind(runner) == runner.device.upper()
    assert at_default(runner).precision == "default" and at_default(runner).settings() == settings


def test_it_says_the_precision_it_computes_in(runner: Runner, exported: Exported) -> None:
    """What was asked for, or what the device chose where the choice was left to it."""
    network = runner.load(exported)
    assert network.precision in CLOSE
    if runner.precision != "default":
        assert network.precision == runner.precision


def test_it_runs_again_and_again_on_its_fixed_input(runner: Runner, exported: Exported) -> None:
    """Without an input from outside, and without changing what `infer` gives."""
    network = loaded(runner, exported)
    before = network.infer(IMAGES[0].numpy())
    for _ in range(30):
        took: list[float] = []
        whole = clocked(lambda: took.append(network.run()))  # noqa: B023 (called at once)
        assert 0 < took[0] < whole
    assert np.array_equal(network.infer(IMAGES[0].numpy()), before)


def test_its_throughput_is_counted(runner: Runner, exported: Exported) -> None:
    """Inferences per second of a run of its own: above 0 and finite."""
    assert 0 < runner.load(exported).throughput(0.02) < 1e7


def test_it_holds_several_networks_at_once(runner: Runner, exported: Exported, tmp_path: Path) -> None:
    """Sessions do not disturb each other."""
    other = export(Residual(24, ()).eval(), IMAGES[0], tmp_path)
    first, second = loaded(runner, exported), loaded(runner, other)
    alone = first.infer(IMAGES[1].numpy())
    second.run()
    assert np.array_equal(first.infer(IMAGES[1].numpy()), alone)
    assert not np.allclose(second.infer(IMAGES[1].numpy()), alone)


def test_a_device_that_is_not_there_is_bad_input() -> None:
    """One line with the devices that are."""
    with pytest.raises(BadInput, match="device: got 'TPU'; OpenVINO has CPU"):
        OpenVINORunner("TPU")
    with pytest.raises(BadInput, match="device: got 'tpu'; torch has cpu"):
        TorchRunner("tpu")


def test_a_precision_that_is_not_there_is_bad_input() -> None:
    """One line with the precisions that are."""
    with pytest.raises(BadInput, match="precision: got 'f8'; CPU of this host computes in f32"):
        OpenVINORunner(precision="f8")
    with pytest.raises(BadInput, match="precision: got 'f8'"):
        TorchRunner(precision="f8")


def test_f32_on_a_gpu_is_not_rounded_to_tf32() -> None:
    """Inside the block alone: what a training set is as it was afterwards."""
    before = torch.backends.cudnn.conv.fp32_precision
    with without_tf32():
        assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == before == "tf32"


def test_streams_threads_and_precision_are_pinned() -> None:
    """A latency is compiled with one stream, so many threads and the precision asked for, not what a hint chooses."""
    options = OpenVINORunner(threads=2).options()
    assert (options["NUM_STREAMS"], options["INFERENCE_NUM_THREADS"]) == (1, 2)
    assert options["INFERENCE_PRECISION_HINT"] == "f32" and options["PERFORMANCE_HINT"] == "LATENCY"
    assert "INFERENCE_PRECISION_HINT" not in OpenVINORunner(precision="default").options()
    assert OpenVINORunner(threads=2).settings() == {"runner": "openvino_cpu", "streams": "1", "threads": "2"}


def test_a_network_that_the_device_refuses_is_a_device_failure(exported: Exported, tmp_path: Path) -> None:
    """A broken model file fails the trial with kind DEVICE and one line."""
    broken = Exported(tmp_path / "none.xml", None, "f32", 0, (1, 1, 16, 16))
    with pytest.raises(TrialFailed) as failed:
        OpenVINORunner().load(broken)
    assert failed.value.failure.kind == FailureKind.DEVICE and "\n" not in failed.value.failure.message
    with pytest.raises(BadInput, match="torch needs the network itself"):
        TorchRunner().load(broken)
    with pytest.raises(BadInput, match="ONNX needs the network itself"):
        onnx_file(broken)
