"""A small network that never changes, timed on a host once a day: what its milliseconds say is the host's own drift.

Ratios to the dense network hide a host that became slower; here nothing is divided out. The first figure and the latest
are kept in the cache folder; every run on the host tells both. docs/measurement.md says what to make of them.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from prunefleet.agent.host.cache_files import cache_folder, replace_file
from prunefleet.agent.measure import lock
from prunefleet.agent.measure.exported import Exported, sized
from prunefleet.agent.measure.intervals import p10
from prunefleet.agent.measure.openvino_core import openvino
from prunefleet.agent.measure.rounds import slot, warm_up
from prunefleet.agent.measure.runners.base import Array, LoadedNetwork, OpenVINORunner, Runner, supported_precisions
from prunefleet.objective import checks
from prunefleet.objective.devices import DRIFTED, REFERENCE
from prunefleet.objective.plain import Plain
from prunefleet.objective.trial import TrialFailed

FOLDER = "reference"
SHAPE = (1, 3, 32, 32)
LAYERS = ((32, 3, 1), (64, 32, 2), (64, 64, 1))
"""Convolutions of 3 × 3, each with a ReLU: channels out and in, stride."""
DAY_S = 86400.0
SESSION_S = 0.4
LOADS = 2
OPENVINO, ON_THE_CPU = "openvino_", ("torch_cpu", "onnxruntime_cpu")


@dataclass(frozen=True)
class Reference(Plain):
    """What the reference network took on a device of this host: 10th percentiles in milliseconds.

    `at` is when it was timed last, in seconds since 1970 by this host's clock.
    """

    network: str
    device: str
    ms: float
    first_ms: float
    at: float

    def __post_init__(self) -> None:
        checks.positive("reference.ms", self.ms)
        checks.positive("reference.first_ms", self.first_ms)

    @property
    def change(self) -> float:
        """How much longer it takes than at first: 0.1 is a tenth."""
        return self.ms / self.first_ms - 1

    def words(self) -> dict[str, Any]:
        """What a run's summary says of it."""
        return {"ms": self.ms, "first_ms": self.first_ms, "device": self.device, "network": self.network}


def told(runner: Runner) -> dict[str, Any]:
    """The words for a run on this host, timed anew where a day has passed; none where OpenVINO has not the device.

    A host that cannot tell measures all the same.
    """
    name = runner.settings().get("runner", "")
    device = "CPU" if name in ON_THE_CPU else runner.device if name.startswith(OPENVINO) else None
    try:
        return {REFERENCE: today(device).words()} if device else {}
    except (OSError, RuntimeError, TrialFailed):
        return {}


def today(device: str = "CPU") -> Reference:
    """The device's figure of the last day, else a new one. Raises `OSError`, `RuntimeError` and `TrialFailed`."""
    found = kept(device)
    if found and _fresh(found):
        return found
    with lock.exclusive(device):
        found = kept(device)  # another agent of this host may have timed it meanwhile
        if found and _fresh(found):
            return found
        ms = timed(device, found.first_ms if found else None)
    new = Reference(fingerprint(), device.lower(), ms, found.first_ms if found else ms, time.time())
    replace_file(_path(device), json.dumps(new.to_json()).encode())
    return new


def kept(device: str = "CPU") -> Reference | None:
    """What this host remembers; nothing where the file is missing, damaged, or about another network."""
    try:
        found = Reference.from_json(json.loads(_path(device).read_text()))
    except (OSError, ValueError):
        return None
    return found if found.network == fingerprint() else None


def _fresh(found: Reference) -> bool:
    return 0 <= time.time() - found.at < DAY_S  # a clock that was set back makes nothing last for ever


def _path(device: str) -> Path:
    return cache_folder() / FOLDER / f"{device.lower()}.json"


def timed(device: str = "CPU", usual: float | None = None) -> float:
    """Milliseconds of one inference now: the 10th percentile over slots, of two loads that take turns.

    Where that is not as `usual` there is a second measurement session, and the faster one counts.
    """
    precision = "f32" if "f32" in supported_precisions(device) else "default"
    runner = OpenVINORunner(device, precision)
    with tempfile.TemporaryDirectory() as folder:
        model = written(Path(folder))
        networks = [runner.load(model) for _ in range(LOADS)]
    with lock.exclusive(device):
        lengths = [warm_up(network) for network in networks]
        loads = list(zip(networks, lengths, strict=True))
        ms = _measured(loads)
        return ms if usual is None or abs(ms / usual - 1) <= DRIFTED else min(ms, _measured(loads))


def _measured(loads: Sequence[tuple[LoadedNetwork, int]]) -> float:
    slots: list[float] = []
    until = time.perf_counter() + SESSION_S
    while time.perf_counter() < until:
        slots += [float(slot(*load).min()) for load in loads]
    return p10(slots)


def written(folder: Path) -> Exported:
    """The network's files in `folder`."""
    ops = openvino.opset13
    *filters, last = weights()
    image = ops.parameter(list(SHAPE), np.float32)
    found = image
    for kernel, (_, _, stride) in zip(filters, LAYERS, strict=True):
        found = ops.relu(ops.convolution(found, ops.constant(kernel), [stride] * 2, [1, 1], [1, 1], [1, 1]))
    pooled = ops.reduce_mean(found, ops.constant(np.array([2, 3])))
    model = openvino.Model([ops.matmul(pooled, ops.constant(last), False, True)], [image], "reference")
    openvino.save_model(model, folder / "reference.xml", compress_to_fp16=False)
    return sized(folder / "reference.xml", "f32", SHAPE)


@cache
def weights() -> tuple[Array, ...]:
    """Of the convolutions in their order, then of the last layer: numbers in [-0.5, 0.5), from a formula."""
    return (*(_numbers((out, into, 3, 3)) for out, into, _ in LAYERS), _numbers((10, LAYERS[-1][0])))


def _numbers(shape: tuple[int, ...]) -> Array:
    """Knuth's multiplicative hash of 0, 1, 2, …: the same on every host and with every version of numpy."""
    hashed = np.arange(np.prod(shape), dtype=np.uint32) * np.uint32(2654435761)
    return (hashed / np.float64(2**32) - 0.5).astype(np.float32).reshape(shape)


@cache
def fingerprint() -> str:
    """Twelve digits of a SHA-256 that stands for the network."""
    digest = hashlib.sha256(repr((SHAPE, LAYERS)).encode())
    for each in weights():
        digest.update(each.tobytes())
    return digest.hexdigest()[:12]
