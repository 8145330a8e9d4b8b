"""One suite that every runner passes, on each device and precision that this host has; the rest skip with a reason."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from prunefleet.agent.measure.export import export
from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.rounds import slot, warm_up
from prunefleet.agent.measure.runners.base import (
    OpenVINORunner,
    Runner,
    clocked,
)
from prunefleet.agent.measure.runners.deployed import Deployed
from prunefleet.agent.measure.runners.onnx_file import onnx_file
from prunefleet.agent.measure.runners.registry import at_default, kind, runner_for
from prunefleet.agent.measure.runners.torch import TorchRunner, without_tf32
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import FailureKind, TrialFailed

from support.networks import Residual
from support.runners import CASES, CLOSE, NAMES, loaded

IMAGES = torch.randn(4, 1, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A small residual network."""
    return export(Residual(16, (8,)).eval(), IMAGES[0], tmp_path_factory.mktemp("runners"))


@pytest.fixture(params=CASES, ids=NAMES)
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
        (got,) = network.infer(image.numpy())
        assert got.shape == expected.shape and got.dtype == np.float32
        assert np.abs(got - expected).max() <= CLOSE[network.precision] * np.abs(expected).max()


def test_a_deployed_network_takes_batches_of_any_size(runner: Runner, exported: Exported) -> None:
    """It gives for a batch what the device gives for each input alone, so that a task can evaluate it."""
    network = loaded(runner, exported)
    images = IMAGES.flatten(0, 1)[:3]
    expected = np.concatenate([network.infer(image[None].numpy())[0] for image in images])
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
    (before,) = network.infer(IMAGES[0].numpy())
    for _ in range(30):
        took: list[float] = []
        whole = clocked(lambda: took.append(network.run()))  # noqa: B023 (called at once)
        assert 0 < took[0] < whole
    assert np.array_equal(network.infer(IMAGES[0].numpy())[0], before)


def test_its_throughput_is_counted(runner: Runner, exported: Exported) -> None:
    """Inferences per second of a run of its own: above 0 and finite."""
    assert 0 < runner.load(exported).throughput(0.02) < 1e7


def test_it_holds_several_networks_at_once(runner: Runner, exported: Exported, tmp_path: Path) -> None:
    """Sessions do not disturb each other."""
    other = export(Residual(24, ()).eval(), IMAGES[0], tmp_path)
    first, second = loaded(runner, exported), loaded(runner, other)
    (alone,) = first.infer(IMAGES[1].numpy())
    second.run()
    assert np.array_equal(first.infer(IMAGES[1].numpy())[0], alone)
    assert not np.allclose(second.infer(IMAGES[1].numpy())[0], alone)


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
