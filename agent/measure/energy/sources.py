"""Energy of one inference: what a counter of the host's or the device's rose by, over the inferences run meanwhile.

It is all that the counter sees: idle power and whatever else runs there are part of it. So candidate and dense model
take turns, as with latency, under the same lock; and one value holds both, from one source. Which source a sweep reads
is a constant of the sweep (`measure.energy`): its trials read that one or none.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np

from prunefleet.agent.measure.energy.meters import NVMLMeter, RAPLMeter, TegrastatsMeter
from prunefleet.agent.measure.rounds import DENSE
from prunefleet.agent.measure.runners.base import LoadedNetwork, SampledNetwork
from prunefleet.objective.runners import RUNNERS
from prunefleet.objective.trial import Energy

BLOCKS = 4
BLOCK_S = 0.2
STEPS_A_BLOCK = 5  # of the counter, which moves in steps

Joules = Callable[[], float]


class Meter(Protocol):
    """A counter of energy."""

    @property
    def source(self) -> str:
        """What is read: "rapl", "nvml" or "tegrastats"."""

    @property
    def step_s(self) -> float:
        """Seconds between two steps of the counter."""

    def reading(self) -> AbstractContextManager[Joules]:
        """Gives a function that returns joules since some moment, which never fall.

        Entering raises `OSError` where the counter cannot be read, and so does the function.
        """


METERS: Mapping[str, Callable[[], Meter]] = {"rapl": RAPLMeter, "nvml": NVMLMeter, "tegrastats": TegrastatsMeter}


def find_meter(source: str | None) -> Meter | None:
    """The meter for that source; None where none is asked for, or this host cannot read it."""
    if source is None:
        return None
    meter = METERS[source]()
    try:
        with meter.reading() as joules:
            joules()
    except OSError:
        return None
    return meter


def source_of(runner: str) -> str | None:
    """The first source that sees this runner's device and that this host can read."""
    return next((source for source in RUNNERS[runner].energy if find_meter(source)), None)


def per_inference(meter: Meter, networks: Mapping[str, LoadedNetwork], seed: int = 0) -> dict[str, Energy]:
    """Energy of each network's inferences and of the dense one's, in blocks that take turns in random order.

    Empty where the counter fails or stands still meanwhile, or a program of the user's runs the networks.
    """
    if any(isinstance(network, SampledNetwork) for network in networks.values()):
        return {}
    try:
        with meter.reading() as joules:
            found = _blocks(joules, networks, max(BLOCK_S, STEPS_A_BLOCK * meter.step_s), seed)
    except OSError:
        return {}
    if not all(found.values()):
        return {}
    return {name: Energy(found[name], found[DENSE], meter.source) for name in networks}


def _blocks(joules: Joules, networks: Mapping[str, LoadedNetwork], seconds: float, seed: int) -> dict[str, float]:
    """Millijoules of one inference by network."""
    names, random = list(networks), np.random.default_rng(seed)
    spent, calls = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    for _ in range(BLOCKS):
        for index in random.permutation(len(names)):
            before = joules()
            calls[names[index]] += _run_for(networks[names[index]], seconds)
            spent[names[index]] += joules() - before
    return {name: 1e3 * spent[name] / calls[name] for name in names}


def _run_for(network: LoadedNetwork, seconds: float) -> int:
    until, count = time.perf_counter() + seconds, 0
    while not count or time.perf_counter() < until:
        network.run()
        count += 1
    return count
