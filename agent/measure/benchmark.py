"""Latency of candidates against the dense model: interleaved slots, 10th percentiles, repeated until it is certain.

A slot is a few milliseconds of one network's calls; its value is their 10th percentile, which other work on the host
hardly moves. Rounds run one slot of every network in random order, so whatever slows the host slows all of them.
docs/measurement.md gives the protocol and its limits.
"""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.measure import lock
from agent.measure.export import Exported
from agent.measure.runners import Array, Runner, Session
from objective.errors import BadInput
from objective.stats import bootstrap_ratio_interval
from objective.trial import Device, Latency

Model = Exported | Callable[[], object]
Samples = NDArray[np.float64]

QUANTILE = 10
WARM_UP_CALLS = 20
SLOT_S = 0.004
FEWEST_ROUNDS = 15
ROUNDS_BETWEEN_CHECKS = 20
THROUGHPUT_S = 0.2
DRIFT_LIMIT = 0.10
LOOSE = 0.05
DENSE = "dense"


@dataclass(frozen=True)
class Sitting:
    """Networks measured together: a `Latency` for each (the dense one under "dense"), and the raw samples.

    `slots[name]`: 10th percentiles of its slots in milliseconds, in the order of the rounds; `calls[name]`: every call,
    milliseconds.
    """

    latencies: Mapping[str, Latency]
    slots: Mapping[str, Samples]
    calls: Mapping[str, Samples]
    seconds: float

    def interval_ms(self, name: str, q: float = QUANTILE, seed: int = 0) -> tuple[float, float]:
        """95 % bootstrap interval of that percentile of the slots, in milliseconds."""
        slots = self.slots[name]
        chosen = np.random.default_rng(seed).integers(0, len(slots), (2000, len(slots)))
        low, high = np.percentile(np.percentile(slots[chosen], q, axis=1), [2.5, 97.5])
        return float(low), float(high)


def compare(
    candidate: Model,
    dense: Model,
    *,
    runner: Runner,
    device: Device,
    precision: str | None = None,
    time_limit_s: float = 3.0,
    target: float = 0.01,
    seed: int = 0,
    min_rounds: int = 40,
    max_rounds: int = 400,
) -> Latency:
    """Latency of one candidate against the dense model: `compare_many` of one."""
    sitting = compare_many(
        {"candidate": candidate},
        dense,
        runner=runner,
        device=device,
        precision=precision,
        time_limit_s=time_limit_s,
        target=target,
        seed=seed,
        min_rounds=min_rounds,
        max_rounds=max_rounds,
    )
    return sitting.latencies["candidate"]


def compare_many(
    candidates: Mapping[str, Model],
    dense: Model,
    *,
    runner: Runner,
    device: Device,
    precision: str | None = None,
    runners: Mapping[str, Runner] | None = None,
    time_limit_s: float = 3.0,
    target: float = 0.01,
    seed: int = 0,
    min_rounds: int = 40,
    max_rounds: int = 400,
    throughput_s: float = THROUGHPUT_S,
) -> Sitting:
    """Measure all `candidates` and the dense model in one sitting, under the host's lock.

    `precision` is checked against the runner's. `runners` gives single candidates another runner, such as one at the
    device's default precision. Rounds go on until every ratio's interval is within ±`target` of it (looked at from
    `min_rounds` on), or `time_limit_s` seconds are over. `throughput_s` 0 leaves the throughput out (0). Raises
    `BadInput` for a candidate named "dense" or another precision than the runner's, and `TrialFailed` with kind
    DEVICE where the device refuses a network.
    """
    if DENSE in candidates or (precision is not None and precision != runner.precision):
        got, field = (DENSE, "candidates") if DENSE in candidates else (precision, "precision")
        raise BadInput(field, got, f"name it otherwise; the runner computes in {runner.precision}")
    special = runners or {}
    models = {DENSE: dense, **candidates}
    sessions = {name: _load(model, special.get(name, runner)) for name, model in models.items()}
    began = time.perf_counter()
    with lock.exclusive(device.name):
        bench = _Bench(sessions, seed)
        bench.measure(time_limit_s, target, min_rounds, max_rounds)
        fps = {name: session.throughput(throughput_s) if throughput_s else 0.0 for name, session in sessions.items()}
    seconds = time.perf_counter() - began
    latencies = {name: bench.latency(name, device, fps[name]) for name in models}
    slots = {name: np.array(values) for name, values in bench.slots.items()}
    return Sitting(latencies, slots, {name: np.concatenate(parts) for name, parts in bench.calls.items()}, seconds)


class _Bench:
    """The rounds of one sitting."""

    def __init__(self, sessions: Mapping[str, Session], seed: int) -> None:
        self.sessions, self.seed = sessions, seed
        self.slots: dict[str, list[float]] = {name: [] for name in sessions}
        self.calls: dict[str, list[Samples]] = {name: [] for name in sessions}
        self._length = {name: _warm_up(session) for name, session in sessions.items()}
        self._random = np.random.default_rng(seed)

    def measure(self, time_limit_s: float, target: float, min_rounds: int, max_rounds: int) -> None:
        """Run rounds until all intervals are tight, the time is over, or `max_rounds` are done."""
        until = time.perf_counter() + time_limit_s
        collecting = gc.isenabled()
        gc.disable()
        try:
            for done in range(1, max_rounds + 1):
                self._round()
                over = time.perf_counter() > until and done >= min(min_rounds, FEWEST_ROUNDS)
                due = done >= min_rounds and done % ROUNDS_BETWEEN_CHECKS == 0
                if over or (due and self._tight(target)):
                    break
        finally:
            if collecting:
                gc.enable()

    def _round(self) -> None:
        names = list(self.sessions)
        for index in self._random.permutation(len(names)):
            calls = _slot(self.sessions[names[index]], self._length[names[index]])
            self.calls[names[index]].append(calls)
            self.slots[names[index]].append(float(np.percentile(calls, QUANTILE)))

    def _tight(self, target: float) -> bool:
        return all(_half_width(*self.interval(name, 200)) <= target for name in self.sessions if name != DENSE)

    def interval(self, name: str, n: int) -> tuple[float, float, float]:
        """Ratio of 10th percentiles to the dense model's, with the ends of its 95 % bootstrap interval."""
        if name == DENSE:
            return 1.0, 1.0, 1.0
        slots, dense = np.array(self.slots[name]), np.array(self.slots[DENSE])
        ratio, low, high = bootstrap_ratio_interval(slots, dense, q=QUANTILE, n=n, seed=self.seed)
        return float(ratio), float(low), float(high)

    def latency(self, name: str, device: Device, fps: float) -> Latency:
        """What one network's rounds say; percentiles of milliseconds above the 10th are those of single calls."""
        ratio, low, high = self.interval(name, 2000)
        dense = np.array(self.slots[DENSE])
        p10 = float(np.percentile(self.slots[name], QUANTILE))
        p50, p90, p99 = (float(value) for value in np.percentile(np.concatenate(self.calls[name]), [50, 90, 99]))
        return Latency(
            device=device,
            precision=self.sessions[name].precision,
            ratio=ratio,
            ratio_lo=low,
            ratio_hi=high,
            p10_ms=min(p10, p50),
            p50_ms=p50,
            p90_ms=p90,
            p99_ms=p99,
            baseline_p10_ms=float(np.percentile(dense, QUANTILE)),
            baseline_p50_ms=float(np.percentile(np.concatenate(self.calls[DENSE]), 50)),
            throughput_fps=fps,
            n=len(dense),
            noisy=drift(dense) > DRIFT_LIMIT or _half_width(ratio, low, high) > LOOSE,
        )


def drift(slots: Samples) -> float:
    """How far the 10th percentiles of the first and the second half of the slots lie apart, relative to the smaller."""
    halves = [float(np.percentile(half, QUANTILE)) for half in np.array_split(slots, 2) if len(half)]
    return max(halves) / min(halves) - 1


def _half_width(ratio: float, low: float, high: float) -> float:
    return (high - low) / 2 / ratio


def _load(model: Model, runner: Runner) -> Session:
    return runner.load(model) if isinstance(model, Exported) else _CallSession(model, runner.precision)


def _warm_up(session: Session) -> int:
    """Run until calls are steady; returns how many calls fill a slot."""
    calls = _slot(session, WARM_UP_CALLS)
    steady_ms = max(float(np.median(calls[WARM_UP_CALLS // 2 :])), 1e-4)
    length = max(1, round(SLOT_S * 1e3 / steady_ms))
    _slot(session, min(length, WARM_UP_CALLS))
    return length


def _slot(session: Session, calls: int) -> Samples:
    """Milliseconds of that many calls in a row."""
    run, clock = session.run, time.perf_counter_ns
    stamps = [clock()]
    for _ in range(calls):
        run()
        stamps.append(clock())
    return np.diff(np.array(stamps)) / 1e6


class _CallSession:
    """A bare callable as a session: it has no input to set and no queue to fill."""

    def __init__(self, call: Callable[[], object], precision: str) -> None:
        self._call, self.precision = call, precision

    def run(self) -> None:
        """One call."""
        self._call()

    def infer(self, batch: Array) -> Array:
        """A callable takes no batch."""
        raise NotImplementedError("a bare callable runs on its own input: export the network to infer on another")

    def throughput(self, seconds: float) -> float:
        """0: unknown, since one call has to end before the next begins."""
        return 0.0
