"""The rounds of one measurement session: a slot of every network in random order, until the ratios are certain."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from prunefleet.agent.measure.intervals import (
    DRAWS,
    Samples,
    drift,
    half_width,
    p10,
    ratio_drift,
    ratio_interval,
    widened,
)
from prunefleet.agent.measure.runners.base import WARM_UP_CALLS, Array, Arrays, LoadedNetwork, SampledNetwork, clocked
from prunefleet.objective.trial import Device, Latency

DENSE = "dense"
SLOT_S = 0.004  # about one time slice: a slot is interrupted once or not at all
PROGRAM_SLOT_S = 0.2  # of a program of the user's: starting it costs more than its calls
STEADY = 2.0  # the halves of the rounds agree within this many targets
PATIENCE = 3.0  # time limits for a noisy host
DRIFT_LIMIT, LOOSE = 0.10, 0.05  # noisy beyond: the dense model's drift, the ratio's drift or half interval


@dataclass(frozen=True)
class RoundSchedule:
    """How many rounds there are at least, from which on a tight interval ends them, and how often it is looked at.

    They end from `settled` on, later where few networks share the session, after `slots` slots of all together, and
    after `turns` rounds of each load.
    """

    fewest: int
    settled: int
    slots: int
    turns: int
    between_checks: int

    def ends_from(self, networks: int, loads: int) -> int:
        """From which round on a tight interval ends them."""
        return max(self.settled, self.slots // networks, self.turns * loads)


IN_PROCESS, BY_PROGRAM = RoundSchedule(16, 40, 400, 50, 40), RoundSchedule(4, 8, 0, 4, 4)


class Rounds:
    """Measurements of networks that take turns; `networks[name]` are loads of the same network.

    `slots[name]`: the fastest call of each of its slots in milliseconds, one a round; `calls[name]`: the calls of each.
    """

    def __init__(self, networks: Mapping[str, Sequence[LoadedNetwork]], seed: int) -> None:
        self.networks, self.seed = networks, seed
        self.loads = len(networks[DENSE])
        self.slots: dict[str, list[float]] = {name: [] for name in networks}
        self.calls: dict[str, list[Samples]] = {name: [] for name in networks}
        self._length = {name: min(map(warm_up, each)) for name, each in networks.items()}
        self._random = np.random.default_rng(seed)

    def measure(self, time_limit_s: float, target: float, min_rounds: int | None, max_rounds: int) -> None:
        """Run rounds until all intervals are tight, the time is over, or `max_rounds` are done.

        What is noisy then gets more time, `PATIENCE` times the limit in all.
        """
        by_program = any(isinstance(each[0], SampledNetwork) for each in self.networks.values())
        schedule = BY_PROGRAM if by_program else IN_PROCESS
        settled = min_rounds or schedule.ends_from(len(self.networks), self.loads)
        began = time.perf_counter()
        with _no_garbage_collection():
            for done in range(1, max_rounds // self.loads * self.loads + 1):
                self._round((done - 1) % self.loads)
                if done % self.loads or done < min(settled, schedule.fewest):
                    continue
                if done >= settled and done % schedule.between_checks == 0 and self._tight(target):
                    break
                if self._over(time.perf_counter() - began, time_limit_s):
                    break

    def _over(self, spent: float, limit: float) -> bool:
        return spent > limit and (spent > PATIENCE * limit or not any(map(self.noisy, self.slots)))

    def _round(self, load: int) -> None:
        names = list(self.networks)
        for index in self._random.permutation(len(names)):
            calls = slot(self.networks[names[index]][load], self._length[names[index]])
            self.calls[names[index]].append(calls)
            self.slots[names[index]].append(float(calls.min()))

    def _tight(self, target: float) -> bool:
        """Whether every ratio's interval is within the target and the two halves of its rounds agree."""
        return all(
            half_width(*self.interval(name, 200)) <= target and self._ratio_drift(name) <= STEADY * target
            for name in self.networks
        )

    def noisy(self, name: str) -> bool:
        """Whether the dense model or the ratio drifted, or the ratio's interval is wider than any use of it allows."""
        loose = max(half_width(*self.interval(name, 200)), self._ratio_drift(name))
        return loose > LOOSE or drift(np.array(self.slots[DENSE])) > DRIFT_LIMIT

    def _ratio_drift(self, name: str) -> float:
        return ratio_drift(np.array(self.slots[name]), np.array(self.slots[DENSE]))

    def interval(self, name: str, draws: int = DRAWS) -> tuple[float, float, float]:
        """Ratio of 10th percentiles to the dense model's, with the ends of its 95 % interval in this session."""
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
            precision=self.networks[name][0].precision,
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


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Python's collector would strike in the middle of a slot."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def warm_up(network: LoadedNetwork) -> int:
    """Run until calls are steady; returns how many calls fill a slot."""
    calls = slot(network, WARM_UP_CALLS)
    steady_ms = max(float(np.median(calls[len(calls) // 2 :])), 1e-4)
    if isinstance(network, SampledNetwork):  # warms itself up, each time
        return max(WARM_UP_CALLS, round(PROGRAM_SLOT_S * 1e3 / steady_ms))
    length = max(1, round(SLOT_S * 1e3 / steady_ms))
    slot(network, min(length, WARM_UP_CALLS))
    return length


def slot(network: LoadedNetwork, calls: int) -> Samples:
    """Milliseconds of that many calls in a row."""
    if isinstance(network, SampledNetwork):
        return network.samples(calls)
    return np.array([network.run() for _ in range(calls)])


class CallableNetwork:
    """A bare callable as a loaded network: it has no input to set and no queue to fill."""

    def __init__(self, call: Callable[[], object], precision: str) -> None:
        self._call, self.precision = call, precision

    def run(self) -> float:
        """One call; its milliseconds."""
        return clocked(self._call)

    def infer(self, batch: Array) -> Arrays:
        """A callable takes no batch."""
        raise NotImplementedError("a bare callable runs on its own input: export the network to infer on another")

    def throughput(self, seconds: float) -> float:
        """0: unknown, since one call has to end before the next begins."""
        return 0.0
