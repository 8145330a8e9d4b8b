"""torch as a runner: apart from the others, so that a host that only measures needs no torch."""

import copy
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.outputs import arrays
from prunefleet.agent.measure.runners.base import Array, Arrays, clocked, fixed_input, refused
from prunefleet.objective.errors import BadInput

TORCH_TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


@dataclass(frozen=True)
class TorchRunner:
    """torch, eager, on `device` ("cpu" or "cuda", "cuda:1", …); the export has to hold its network still.

    Sets the process's number of torch threads to `threads` when it runs. Raises `BadInput` for a device or precision
    that is not there.
    """

    device: str = "cpu"
    precision: str = "f32"
    threads: int = 1

    def __post_init__(self) -> None:
        kind = self.device.partition(":")[0]
        if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
            raise BadInput(
                "device", self.device, f"torch has {'cpu, cuda' if torch.cuda.is_available() else 'cpu'} here"
            )
        if self.precision not in ("default", *TORCH_TYPES):
            raise BadInput("measure.precision", self.precision, f"choose default, {', '.join(TORCH_TYPES)}")

    def settings(self) -> dict[str, str]:
        """One call at a time; threads of the processor."""
        return {"runner": f"torch_{self.device}", "streams": "1", "threads": str(self.threads)}

    def load(self, model: Exported) -> "TorchNetwork":
        """Copy `model.network` to the device; raises `TrialFailed` with kind DEVICE where that fails."""
        if model.network is None:
            raise BadInput("model", str(model.xml), "torch needs the network itself: measure it where it was exported")
        try:
            return TorchNetwork(model.network, model.input_shape, self)
        except RuntimeError as error:
            raise refused(self.device, error) from error


class TorchNetwork:
    """A network on a torch device with a fixed input."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...], runner: TorchRunner) -> None:
        self.precision = "f32" if runner.precision == "default" else runner.precision
        self._device, self._threads = torch.device(runner.device), runner.threads
        kind = TORCH_TYPES[self.precision]
        self._network = copy.deepcopy(network).eval().to(self._device, kind)
        self._input = torch.from_numpy(fixed_input(shape)).to(self._device, kind)

    @torch.inference_mode()
    def run(self) -> float:
        """One inference; milliseconds until the output was there."""
        self._limit_threads()
        with self._as_asked():
            return clocked(self._once)

    def _once(self) -> None:
        self._network(self._input)
        self._synchronise()

    @torch.inference_mode()
    def infer(self, batch: Array) -> Arrays:
        """All outputs for `batch`, which has the input's shape, in order."""
        with self._as_asked():
            return arrays(self._network(torch.from_numpy(batch).to(self._device, self._input.dtype)))

    @torch.inference_mode()
    def throughput(self, seconds: float) -> float:
        """Inferences per second when each is queued behind the last without waiting for it."""
        self._limit_threads()
        with self._as_asked():
            self._queue(time.perf_counter() + seconds / 4)
            began = time.perf_counter()
            count = self._queue(began + seconds)
        return count / (time.perf_counter() - began)

    def _queue(self, until: float) -> int:
        count = 0
        while time.perf_counter() < until:
            self._network(self._input)
            count += 1
        self._synchronise()
        return count

    def _as_asked(self) -> AbstractContextManager[None]:
        """In the precision that was asked for: left alone, torch rounds f32 on a GPU to TF32."""
        exact = self._device.type == "cuda" and self._input.dtype == torch.float32
        return without_tf32() if exact else nullcontext()

    def _synchronise(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _limit_threads(self) -> None:
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)


@contextmanager
def without_tf32() -> Iterator[None]:
    """f32 on a GPU of NVIDIA's is computed in f32 inside the block; training may want it otherwise outside."""
    backends: Any = torch.backends
    rooms = (backends.cudnn.conv, backends.cuda.matmul)
    before = [room.fp32_precision for room in rooms]
    try:
        for room in rooms:
            room.fp32_precision = "ieee"
        yield
    finally:
        for room, precision in zip(rooms, before, strict=True):
            room.fp32_precision = precision
