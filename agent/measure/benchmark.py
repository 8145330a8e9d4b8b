"""Latency of candidates against the dense model: interleaved slots, 10th percentiles, repeated until it is certain.

A slot is a few milliseconds of one network's calls; its value is their 10th percentile, which other work on the host
hardly moves. Rounds run one slot of every network in random order, so whatever slows the host slows all of them.
Every network is loaded several times, and rounds take the loads in turn.
docs/measurement.md gives the protocol and its limits.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agent.measure import lock
from agent.measure.export import Exported
from agent.measure.intervals import (
    DRAWS,
    Samples,
    drift,
    half_width,
    p10,
    ratio_drift,
    ratio_interval,
    time_interval,
    widened,
)
from agent.measure.runners import Array, Runner, Session
from objective.errors import BadInput
from objective.trial import Device, Latency

Model = Exported | Callable[[], object]

WARM_UP_CALLS = 20
SLOT_S = 0.004  # about one time slice: a slot is interrupted once or not at all
FEWEST_ROUNDS = 16
ROUNDS_BETWEEN_CHECKS = 20
LOADS = 4
LOADING_S = 2.0  # spent on loading again
THROUGHPUT_S = 0.2
STEADY = 2.0  # the halves of the rounds agree within this many targets
PATIENCE = 3.0  # time limits for a noisy host
DRIFT_LIMIT, LOOSE = 0.10, 0.05  # noisy beyond: the dense model's drift, the ratio's drift or half interval
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
    loads: int

    def interval_ms(self, name: str) -> tuple[float, float]:
        """95 % interval of that network's 10th percentile, in milliseconds."""
        return time_interval(self.slots[name], self.loads)


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
    loads: int = LOADS,
) -> Sitting:
    """Measure all `candidates` and the dense model in one sitting, under the host's lock.

    `precision` is checked against the runner's. `runners` gives single candidates another runner, such as one at the
    device's default precision. Rounds go on until every ratio's interval is within ±`target` of it (looked at from
    `min_rounds` on), or `time_limit_s` seconds are over, three times that while the host is noisy. `throughput_s` 0
    leaves the throughput out (0). Each network is loaded `loads` times, fewer where that would take long. Raises
    `BadInput` for a candidate named "dense" or another precision than the runner's, and `TrialFailed` with kind
    DEVICE where the device refuses a network.
    """
    if DENSE in candidates or (precision is not None and precision != runner.precision):
        got, field = (DENSE, "candidates") if DENSE in candidates else (precision, "precision")
        raise BadInput(field, got, f"name it otherwise; the runner computes in {runner.precision}")
    special = runners or {}
    models = {DENSE: dense, **candidates}
    sessions = _load({name: (model, special.get(name, runner)) for name, model in models.items()}, loads)
    with lock.exclusive(device.name):
        bench = _Bench(sessions, seed)
        bench.measure(time_limit_s, target, min_rounds, max_rounds)
        fps = {name: each[0].throughput(throughput_s) if throughput_s else 0.0 for name, each in sessions.items()}
    latencies = {name: bench.latency(name, device, fps[name]) for name in models}
    slots = {name: np.array(values) for name, values in bench.slots.items()}
    calls = {name: np.concatenate(parts) for name, parts in bench.calls.items()}
    return Sitting(latencies, slots, calls, bench.loads)


def _load(models: Mapping[str, tuple[Model, Runner]], loads: int) -> dict[str, list[Session]]:
    """Each network loaded as often as the others: `loads` times, half as often while that would take too long."""
    began = time.perf_counter()
    sessions = {name: [_session(*pair)] for name, pair in models.items()}
    once = time.perf_counter() - began
    while loads > 1 and once * (loads - 1) > LOADING_S:
        loads //= 2
    return {name: each + [_session(*models[name]) for _ in range(loads - 1)] for name, each in sessions.items()}


def _session(model: Model, runner: Runner) -> Session:
    return runner.load(model) if isinstance(model, Exported) else _CallSession(model, runner.precision)


class _Bench:
    """The rounds of one sitting."""

    def __init__(self, sessions: Mapping[str, Sequence[Session]], seed: int) -> None:
        self.sessions, self.seed = sessions, seed
        self.loads = len(sessions[DENSE])
        self.slots: dict[str, list[float]] = {name: [] for name in sessions}
        self.calls: dict[str, list[Samples]] = {name: [] for name in sessions}
        self._length = {name: min(map(_warm_up, each)) for name, each in sessions.items()}
        self._random = np.random.default_rng(seed)

    def measure(self, time_limit_s: float, target: float, min_rounds: int, max_rounds: int) -> None:
        """Run rounds until all intervals are tight, the time is over, or `max_rounds` are done.

        What is noisy then gets more time, `PATIENCE` times the limit in all.
        """
        began = time.perf_counter()
        collecting = gc.isenabled()
        gc.disable()
        try:
            for done in range(1, max_rounds // self.loads * self.loads + 1):
                self._round((done - 1) % self.loads)
                if done % self.loads or done < min(min_rounds, FEWEST_ROUNDS):
                    continue
                if done >= min_rounds and done % ROUNDS_BETWEEN_CHECKS == 0 and self._tight(target):
                    break
                spent = time.perf_counter() - began
                if spent > time_limit_s and (spent > PATIENCE * time_limit_s or not any(map(self.noisy, self.slots))):
                    break
        finally:
            if collecting:
                gc.enable()

    def _round(self, load: int) -> None:
        names = list(self.sessions)
        for index in self._random.permutation(len(names)):
            calls = _slot(self.sessions[names[index]][load], self._length[names[index]])
            self.calls[names[index]].append(calls)
            self.slots[names[index]].append(p10(calls))

    def _tight(self, target: float) -> bool:
        """Whether every ratio's interval is within the target and the two halves of its rounds agree."""
        return all(
            half_width(*self.interval(name, 200)) <= target and self._ratio_drift(name) <= STEADY * target
            for name in self.sessions
        )

    def noisy(self, name: str) -> bool:
        """Whether the dense model or the ratio drifted, or the ratio's interval is wider than any use of it allows."""
        loose = max(half_width(*self.interval(name, 200)), self._ratio_drift(name))
        return loose > LOOSE or drift(np.array(self.slots[DENSE])) > DRIFT_LIMIT

    def _ratio_drift(self, name: str) -> float:
        return ratio_drift(np.array(self.slots[name]), np.array(self.slots[DENSE]))

    def interval(self, name: str, draws: int = DRAWS) -> tuple[float, float, float]:
        """Ratio of 10th percentiles to the dense model's, with the ends of its 95 % interval in this sitting."""
        if name == DENSE:
            return 1.0, 1.0, 1.0
        return ratio_interval(np.array(self.slots[name]), np.array(self.slots[DENSE]), self.loads, draws, self.seed)

    def latency(self, name: str, device: Device, fps: float) -> Latency:
        """What one network's rounds say; percentiles of milliseconds above the 10th are those of single calls."""
        ratio, low, high = self.interval(name)
        low, high = (ratio, ratio) if name == DENSE else widened(ratio, low, high)
        dense = np.array(self.slots[DENSE])
        fast = p10(self.slots[name])
        p50, p90, p99 = (float(value) for value in np.percentile(np.concatenate(self.calls[name]), [50, 90, 99]))
        return Latency(
            device=device,
            precision=self.sessions[name][0].precision,
            ratio=ratio,
            ratio_lo=low,
            ratio_hi=high,
            p10_ms=min(fast, p50),
            p50_ms=p50,
            p90_ms=p90,
            p99_ms=p99,
            baseline_p10_ms=p10(dense),
            baseline_p50_ms=float(np.percentile(np.concatenate(self.calls[DENSE]), 50)),
            throughput_fps=fps,
            n=len(dense),
            noisy=self.noisy(name),
        )


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
