"""What runs an exported network on a device: one protocol, checked by one contract suite for every implementation."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.intervals import Samples
from prunefleet.agent.measure.openvino_core import answers, openvino
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Failure, FailureKind, TrialFailed

Array = NDArray[np.float32]
Arrays = tuple[NDArray[Any], ...]
WARM_UP_CALLS = 20
"""Inferences before those that are timed."""
PRECISION_NAMES = {"float32": "f32", "float": "f32", "bfloat16": "bf16", "float16": "f16"}
REQUESTS_PER_STREAM = 4


class LoadedNetwork(Protocol):
    """A network loaded on a device, ready to run on inputs of its fixed shape."""

    precision: str
    """The precision it computes in: what the device chose where it was free to."""

    def run(self) -> float:
        """One inference on a fixed input; milliseconds until its output was there."""

    def infer(self, batch: Array) -> Arrays:
        """All outputs for `batch`, which has the input's shape, in the order in which torch returns the tensors.

        Integers and booleans are what they are in torch; floating numbers are float32 or wider.
        """

    def throughput(self, seconds: float) -> float:
        """Inferences per second with as many requests in flight as the device likes, over about `seconds`."""


@runtime_checkable
class SampledNetwork(LoadedNetwork, Protocol):
    """A network that another program runs: one call of it cannot be timed here, but many can."""

    def samples(self, calls: int) -> Samples:
        """Milliseconds of at least that many inferences in a row, after a warm-up of their own."""


class Runner(Protocol):
    """A device and a precision, able to load exported networks."""

    @property
    def device(self) -> str:
        """The device's name in its own library."""

    @property
    def precision(self) -> str:
        """The precision asked for; "default" leaves it to the device."""

    def settings(self) -> Mapping[str, str]:
        """What a latency depends on beside device and precision, by name: the runner's own name, streams, threads."""

    def load(self, model: Exported) -> LoadedNetwork:
        """Load `model`; raises `TrialFailed` with kind DEVICE where the device refuses it."""


@dataclass(frozen=True)
class OpenVINORunner:
    """OpenVINO on `device` ("CPU", "GPU", "NPU", …) with one stream of `threads` threads.

    `precision` "default" leaves the choice to the device. Raises `BadInput` for a device that is not there or a
    precision that it has not.
    """

    device: str = "CPU"
    precision: str = "f32"
    threads: int = 1

    def __post_init__(self) -> None:
        core = openvino.Core()
        present = core.available_devices
        if self.device not in present:
            raise BadInput("device", self.device, f"OpenVINO has {', '.join(present) or 'no device'} on this host")
        able = supported_precisions(self.device)
        if self.precision not in ("default", *able):
            raise BadInput(
                "measure.precision", self.precision, f"{self.device} of this host computes in {', '.join(able)}"
            )

    def options(self) -> dict[str, Any]:
        """What the network is compiled with for latency."""
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if self.device == "CPU":
            # A single thread that is tied to a core stays there when a neighbour comes; the kernel would move it.
            pinning = {"ENABLE_CPU_PINNING": False} if self.threads == 1 else {}
            options |= {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": self.threads, **pinning}
        if self.device.startswith("GPU"):
            options |= {"NUM_STREAMS": 1}
        if self.precision != "default":
            options["INFERENCE_PRECISION_HINT"] = self.precision
        return options

    def settings(self) -> dict[str, str]:
        """One stream; threads where the device has any."""
        threads = {"threads": str(self.threads)} if self.device == "CPU" else {}
        return {"runner": f"openvino_{self.device.lower()}", "streams": "1", **threads}

    def load(self, model: Exported) -> "OpenVINONetwork":
        """Compile `model`; raises `TrialFailed` with kind DEVICE where the device refuses it."""
        return OpenVINONetwork(model, self)


def supported_precisions(device: str = "CPU") -> tuple[str, ...]:
    """Precisions that OpenVINO computes in on `device`."""
    able = openvino.Core().get_property(device, "OPTIMIZATION_CAPABILITIES")
    named = {"FP32": "f32", "BF16": "bf16", "FP16": "f16"}
    return tuple(named[each] for each in ("FP32", "BF16", "FP16") if each in able)


class OpenVINONetwork:
    """A compiled network with one request on a fixed input."""

    def __init__(self, model: Exported, runner: OpenVINORunner) -> None:
        self._model, self._runner, self._core = model, runner, openvino.Core()
        self._compiled = self._compile(runner.options())
        self._request = self._compiled.create_infer_request()
        self._input = openvino.Tensor(fixed_input(model.input_shape), shared_memory=True)
        self._request.set_input_tensor(self._input)
        chosen = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.precision = PRECISION_NAMES.get(chosen, chosen)

    def _compile(self, options: dict[str, Any]) -> Any:
        try:
            return self._core.compile_model(self._model.xml, self._runner.device, options)
        except RuntimeError as error:
            raise refused(self._runner.device, error) from error

    def run(self) -> float:
        """One inference; milliseconds as OpenVINO tells them, without those that its Python binding takes."""
        self._request.infer(share_outputs=True)
        return float(self._request.latency)

    def infer(self, batch: Array) -> Arrays:
        """All outputs for `batch`, which has the input's shape, in order."""
        return answers(self._answering, batch)

    @cached_property
    def _answering(self) -> Any:
        """A request of its own: the one that is timed keeps its input."""
        return self._compiled.create_infer_request()

    def throughput(self, seconds: float) -> float:
        """Inferences per second of an asynchronous run of its own, compiled for throughput on the same threads."""
        options = self._runner.options() | {"PERFORMANCE_HINT": "THROUGHPUT"}
        options.pop("NUM_STREAMS", None)
        compiled = self._compile(options)
        # With as many requests as it runs at once the device would idle while Python hands over the next.
        waiting = REQUESTS_PER_STREAM * compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        queue = openvino.AsyncInferQueue(compiled, waiting)
        for request in queue:
            request.set_input_tensor(openvino.Tensor(fixed_input(self._model.input_shape), shared_memory=True))
        _drain(queue, time.perf_counter() + seconds / 4)
        began = time.perf_counter()
        count = _drain(queue, began + seconds)
        return count / (time.perf_counter() - began)


def clocked(call: Callable[[], object]) -> float:
    """Milliseconds that one call takes."""
    began = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - began) / 1e6


def _drain(queue: Any, until: float) -> int:
    """Keep the queue full until then, and wait for its end; returns how many ran."""
    count = 0
    while time.perf_counter() < until:
        queue.start_async()
        count += 1
    queue.wait_all()
    return count


def fixed_input(shape: tuple[int, ...]) -> Array:
    """The input that every runner times a network on: noise, the same each time."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def refused(device: str, error: Exception) -> TrialFailed:
    """Return what to raise where the device does not take the network."""
    message = " ".join(str(error).split())[:200]
    return TrialFailed(Failure(FailureKind.DEVICE, "measure", f"{device} refuses the network: {message}"))
