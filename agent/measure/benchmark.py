"""Latency of candidates against the dense model: interleaved slots, 10th percentiles, repeated until it is certain.

A slot is a few milliseconds of one network's calls; its value is the fastest of them, which other work on the host
hardly moves. Rounds run one slot of every network in random order, so whatever slows the host slows all of them.
Every network is loaded several times, and rounds take the loads in turn.
docs/measurement.md gives the protocol and its limits.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from prunefleet.agent.measure import lock
from prunefleet.agent.measure.conditions import conditions
from prunefleet.agent.measure.energy.sources import Meter, per_inference
from prunefleet.agent.measure.exported import Exported
from prunefleet.agent.measure.intervals import Samples, time_interval
from prunefleet.agent.measure.rounds import DENSE as DENSE
from prunefleet.agent.measure.rounds import CallableNetwork, Rounds
from prunefleet.agent.measure.runners.base import LoadedNetwork, Runner, SampledNetwork
from prunefleet.objective.devices import MeasurementProtocol
from prunefleet.objective.errors import BadInput
from prunefleet.objective.trial import Device, Latency

Model = Exported | Callable[[], object]

CANDIDATE = "candidate"
TIME_LIMIT_S, THROUGHPUT_S = MeasurementProtocol.time_limit_s, MeasurementProtocol.throughput_s
LOADS = MeasurementProtocol.loads
MAX_ROUNDS = 1600  # of slots of 4 ms: what a noisy host may take, three time limits, ends a pair before
LOADING_S = 2.0  # spent on loading again


@dataclass(frozen=True)
class MeasurementSession:
    """Networks measured together: a `Latency` for each (the dense one under "dense"), and the raw samples.

    `slots[name]`: the fastest call of each slot in milliseconds, in the order of the rounds; `calls[name]`: every call,
    milliseconds, in the order of the slots.
    """

    latencies: Mapping[str, Latency]
    slots: Mapping[str, Samples]
    calls: Mapping[str, Samples]
    loads: int

    @property
    def latency(self) -> Latency:
        """The candidate's, of a measurement session that `compare` held."""
        return self.latencies[CANDIDATE]

    def interval_ms(self, name: str) -> tuple[float, float]:
        """95 % interval of that network's 10th percentile, in milliseconds."""
        return time_interval(self.slots[name], self.loads)


@dataclass(frozen=True)
class MeasurementSetup:
    """Settings for measuring networks together on one device; times are seconds.

    `runner` runs the dense model, and each candidate for which `runners` has none, such as one at the device's default
    precision. Rounds go on until every ratio's interval is within ±`target` of it (looked at from `min_rounds` on, 400
    for a pair), until `time_limit_s` is over, three times that while the host is noisy, or until `max_rounds` are done.
    `throughput_s` 0 leaves the throughput out (0). Each network is loaded `loads` times, fewer where that would take
    long. `meter` reads energy in a run of its own.
    """

    runner: Runner
    device: Device
    runners: Mapping[str, Runner] = field(default_factory=dict)
    meter: Meter | None = None
    time_limit_s: float = TIME_LIMIT_S
    throughput_s: float = THROUGHPUT_S
    loads: int = LOADS
    seed: int = 0
    target: float = 0.01
    min_rounds: int | None = None
    max_rounds: int = MAX_ROUNDS

    def runner_of(self, candidate: str) -> Runner:
        """Return what runs the candidate of that name."""
        return self.runners.get(candidate, self.runner)


class Measure(Protocol):
    """Measures networks together on one device: `compare_many` on this host, or a device elsewhere."""

    def __call__(
        self, candidates: Mapping[str, Exported], dense: Exported, setup: MeasurementSetup
    ) -> MeasurementSession:
        """Return a `Latency` for each candidate and for the dense model; raises as `compare_many` does."""


def compare(candidate: Model, dense: Model, setup: MeasurementSetup) -> MeasurementSession:
    """Measure one candidate against the dense model; `latency` of the session is the candidate's."""
    return compare_many({CANDIDATE: candidate}, dense, setup)


def compare_many(candidates: Mapping[str, Model], dense: Model, setup: MeasurementSetup) -> MeasurementSession:
    """Measure all `candidates` and the dense model in one measurement session, under the host's lock.

    Raises `BadInput` for a candidate named "dense", `TrialFailed` with kind DEVICE where the device refuses a network.
    """
    if DENSE in candidates:
        raise BadInput("candidates", DENSE, "name it otherwise: that is the dense model's name")
    models: dict[str, tuple[Model, Runner]] = {DENSE: (dense, setup.runner)}
    models |= {name: (model, setup.runner_of(name)) for name, model in candidates.items()}
    networks = _load(models, setup.loads)
    first = {name: each[0] for name, each in networks.items()}
    with lock.exclusive(setup.device.name):
        before = conditions()
        rounds = Rounds(networks, setup.seed)
        rounds.measure(setup.time_limit_s, setup.target, setup.min_rounds, setup.max_rounds)
        fps = {name: each.throughput(setup.throughput_s) if setup.throughput_s else 0.0 for name, each in first.items()}
        energy = per_inference(setup.meter, first, setup.seed) if setup.meter else {}
        after = conditions()

    def latency(name: str) -> Latency:
        settings, found = models[name][1].settings(), rounds.latency(name, setup.device, fps[name])
        return replace(found, settings=settings, before=before, after=after, energy=energy.get(name))

    slots = {name: np.array(values) for name, values in rounds.slots.items()}
    calls = {name: np.concatenate(parts) for name, parts in rounds.calls.items()}
    return MeasurementSession({name: latency(name) for name in models}, slots, calls, rounds.loads)


def _load(models: Mapping[str, tuple[Model, Runner]], loads: int) -> dict[str, Sequence[LoadedNetwork]]:
    """Each network loaded as often as the others: `loads` times, half as often while that would take too long.

    Once where a program runs it, which loads it for each slot anew.
    """
    began = time.perf_counter()
    networks = {name: [_loaded(*pair)] for name, pair in models.items()}
    once = time.perf_counter() - began
    if any(isinstance(each[0], SampledNetwork) for each in networks.values()):
        loads = 1
    while loads > 1 and once * (loads - 1) > LOADING_S:
        loads //= 2
    return {name: each + [_loaded(*models[name]) for _ in range(loads - 1)] for name, each in networks.items()}


def _loaded(model: Model, runner: Runner) -> LoadedNetwork:
    return runner.load(model) if isinstance(model, Exported) else CallableNetwork(model, runner.precision)
