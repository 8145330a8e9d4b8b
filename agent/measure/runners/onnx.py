"""ONNX Runtime, imported here alone (extra `[onnx]`): on the processor or an NVIDIA GPU, in f32."""

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.runners.base import REQUESTS_PER_STREAM, Array, Arrays, clocked, fixed_input, refused
from prunefleet.agent.measure.runners.onnx_file import onnx_file
from prunefleet.objective.errors import BadInput

PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),  # else "f32" would be rounded without a word
}
PRECISIONS = ("default", "f32")


@dataclass(frozen=True)
class ONNXRunner:
    """ONNX Runtime on `device` ("cpu" or "cuda"), one call at a time on `threads` threads.

    Raises `BadInput` for a device whose provider is not installed, or another precision than f32.
    """

    device: str = "cpu"
    precision: str = "f32"
    threads: int = 1

    def __post_init__(self) -> None:
        present = [name for name in PROVIDERS if PROVIDERS[name][0] in onnxruntime.get_available_providers()]
        if self.device not in present:
            raise BadInput("device", self.device, f"ONNX Runtime has {', '.join(present)} here")
        if self.precision not in PRECISIONS:
            raise BadInput(
                "measure.precision", self.precision, "ONNX Runtime computes a network as it was exported: in f32"
            )

    def settings(self) -> dict[str, str]:
        """One call at a time; threads of the processor."""
        return {"runner": f"onnxruntime_{self.device}", "streams": "1", "threads": str(self.threads)}

    def load(self, model: Exported) -> "ONNXNetwork":
        """Load the network's ONNX file, written where it is missing; raises `TrialFailed` where it is refused."""
        return ONNXNetwork(model, self)

    def session(self, model: Exported, threads: int) -> "onnxruntime.InferenceSession":
        """The library's own session, on so many threads."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # Threads that spin while they wait would take the cores from what is measured next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = onnx_file(model)
        try:
            return onnxruntime.InferenceSession(path, options, providers=[PROVIDERS[self.device]])
        except Exception as error:  # the library's own exceptions share no other base
            raise refused(self.device, error) from error


class ONNXNetwork:
    """A network in ONNX Runtime with a fixed input."""

    precision = "f32"

    def __init__(self, model: Exported, runner: ONNXRunner) -> None:
        self._model, self._runner = model, runner
        self._session = runner.session(model, runner.threads)
        self._name = self._session.get_inputs()[0].name
        self._feed = {self._name: fixed_input(model.input_shape)}

    def run(self) -> float:
        """One inference; milliseconds until the output was there."""
        return clocked(lambda: self._session.run(None, self._feed))

    def infer(self, batch: Array) -> Arrays:
        """All outputs for `batch`, which has the input's shape, in order."""
        return tuple(map(np.array, self._session.run(None, {self._name: np.ascontiguousarray(batch, np.float32)})))

    def throughput(self, seconds: float) -> float:
        """Inferences per second of an asynchronous run of its own: as many at once as there are threads, one each."""
        streams = self._runner.threads
        session = self._runner.session(self._model, 1)
        with ThreadPoolExecutor(streams) as pool:
            queue = _Queue(pool, lambda: session.run(None, self._feed), REQUESTS_PER_STREAM * streams)
            queue.drain(time.perf_counter() + seconds / 4)
            began = time.perf_counter()
            count = queue.drain(began + seconds)
        return count / (time.perf_counter() - began)


class _Queue:
    """Keeps so many calls waiting for a pool of threads; the library computes without Python's lock."""

    def __init__(self, pool: ThreadPoolExecutor, call: Any, waiting: int) -> None:
        self._pool, self._call, self._waiting = pool, call, waiting

    def drain(self, until: float) -> int:
        """Keep the queue full until then, and wait for its end; returns how many ran."""
        count, running = 0, set[Future[Any]]()
        while time.perf_counter() < until:
            running |= {self._pool.submit(self._call) for _ in range(self._waiting - len(running))}
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            count += len(ended)
        return count + len(wait(running).done)
