"""A device elsewhere in the fleet: the queue it takes measurements from, what is asked of it and what it answers.

The queue is a W&B sweep that proposes nothing (`device-NAME`); a request is the configuration of one run that was
enqueued there, the answer stands in that run's summary. Both are versioned JSON; docs/devices.md has the words.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prunefleet.objective import checks, runners
from prunefleet.objective.errors import BadInput
from prunefleet.objective.plain import Plain
from prunefleet.objective.trial import Device, Latency

VERSION = 1
LOCAL = "local"
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
REQUEST, KEY, AVOID = "request", "key", "avoid"
"""The names in a run's configuration: a request, its hash, and hosts that leave it to another board of the kind."""
ANSWER, DUPLICATE, SAMPLES = "answer", "duplicate_of", "samples"
"""The names in its summary: an answer, the run that has it instead, and the version of the samples that go with it."""
REFERENCE, DRIFTED = "reference", 0.10
"""The name of a host's own speed in a run's summary, and from which change on, either way, the host has drifted."""
HARDWARE = ("kind", "cpu", "accelerator")


def device_name(field_name: str, got: object) -> str:
    """Return ``got`` if it may name a device: it becomes part of the names of a sweep and of artifacts."""
    if not isinstance(got, str) or not NAME.fullmatch(got):
        raise BadInput(field_name, got, "give a name of letters, digits, and _ . - after the first, at most 64 in all")
    return got


def device_names(field_name: str, got: object) -> tuple[str, ...]:
    """Return the devices that ``got`` names: one, or a list of several of which the slowest counts."""
    given = list(got) if isinstance(got, list | tuple) else [got]
    names = tuple(device_name(field_name, each) for each in given)
    if not names or len(set(names)) < len(names):
        raise BadInput(field_name, got, "give one device, or a list with each device once")
    return names


def sweep_name(device: str) -> str:
    """What the sweep is called that holds a device's queue."""
    return f"device-{device}"


def device_of(sweep: str) -> str | None:
    """The device whose queue a sweep of that name holds; None for any other sweep."""
    device = sweep.removeprefix("device-")
    return device if device != sweep and NAME.fullmatch(device) else None


def queue(device: str) -> dict[str, Any]:
    """The sweep file of a device's queue: a sweep that proposes nothing and runs what is enqueued."""
    if device_name("NAME", device) == LOCAL:
        raise BadInput("NAME", device, f"name it otherwise: {LOCAL} is the host that trains")
    return {
        "name": sweep_name(device),
        "program": "prunefleet",
        "command": ["${env}", "prunefleet", "measure"],
        "method": "custom",
        "parameters": {"device": {"value": device}},
    }


@dataclass(frozen=True)
class NetworkFile(Plain):
    """A network by the SHA-256 of its IR, the shape of its input, and the precision to run it at."""

    sha256: str
    input_shape: tuple[int, ...]
    precision: str

    def __post_init__(self) -> None:
        if not isinstance(self.sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise BadInput("network.sha256", self.sha256, "give 64 hexadecimal digits")
        for size in self.input_shape:
            checks.whole("network.input_shape", size, low=1)
        checks.one_of("network.precision", self.precision, (*runners.PRECISIONS, "default"))


@dataclass(frozen=True)
class MeasurementProtocol(Plain):
    """How networks are measured together: the settings of a measurement session that a sweep chooses.

    Times are seconds; `energy` is the source to read, None for no energy.
    """

    runner: str = runners.DEFAULT
    threads: int = 1
    time_limit_s: float = 4.0
    throughput_s: float = 0.2
    loads: int = 8
    seed: int = 0
    energy: str | None = None

    def __post_init__(self) -> None:
        runners.measured_by(self.runner, self.threads, self.energy)
        checks.one_of("measure.runner", self.runner, runners.REMOTE)
        checks.number("protocol.time_limit_s", self.time_limit_s, low=0, high=600)
        checks.number("protocol.throughput_s", self.throughput_s, low=0, high=600)
        checks.whole("protocol.loads", self.loads, low=1)
        checks.whole("protocol.seed", self.seed)


@dataclass(frozen=True)
class MeasurementRequest(Plain):
    """Networks to be measured together on a device, the dense model first; without any the device describes itself.

    `expects` are words about the hardware and the software that the device is taken to have; the same request has the
    same `key`, unless a `nonce` sets it apart.
    """

    device: str
    networks: tuple[NetworkFile, ...] = ()
    protocol: MeasurementProtocol = field(default_factory=MeasurementProtocol)
    expects: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    version: int = VERSION

    def __post_init__(self) -> None:
        device_name("request.device", self.device)
        object.__setattr__(self, "expects", dict(self.expects))
        if len(self.networks) == 1:
            raise BadInput("request.networks", len(self.networks), "give the dense model and at least one candidate")

    @property
    def key(self) -> str:
        """SHA-256 of all that the answer depends on: requests with one key are measured once."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def read(cls, document: object) -> MeasurementRequest:
        """The request in a run's configuration. Raises `BadInput`, also for one of another version."""
        return cls.from_json(_of_this_version(REQUEST, document))

    def refuse_other(self, device: Device) -> None:
        """Raise `BadInput` where `device` is not the hardware that the request expects."""
        for name in HARDWARE:
            if name in self.expects and self.expects[name] != str(getattr(device, name)):
                remedy = f"{self.device} was {self.expects[name]} before: give other hardware a name of its own"
                raise BadInput(f"device.{name}", str(getattr(device, name)), remedy)


@dataclass(frozen=True)
class MeasurementAnswer(Plain):
    """What a device says: which it is, the sources of energy it can read, and a latency for each network asked for."""

    device: Device
    energy_sources: tuple[str, ...] = ()
    latencies: tuple[Latency, ...] = ()
    version: int = VERSION

    @classmethod
    def read(cls, document: object) -> MeasurementAnswer:
        """The answer in a run's summary. Raises `BadInput`, also for one of another version."""
        return cls.from_json(_of_this_version(ANSWER, document))

    def expectations(self) -> dict[str, str]:
        """Words by which a request names this hardware and software: after an upgrade all is measured anew."""
        return {name: str(getattr(self.device, name)) for name in HARDWARE} | dict(self.device.versions)


def _of_this_version(what: str, document: object) -> Mapping[str, Any]:
    found = checks.mapping(what, document)
    if found.get("version") != VERSION:
        remedy = f"bring both hosts to the same prunefleet: this one reads version {VERSION}"
        raise BadInput(f"{what}.version", found.get("version"), remedy)
    return found
