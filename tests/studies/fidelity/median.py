"""One network's median latency in a process of its own: ARGV is `slot` or `sitting`, the IR, a seed, and how long.

A slot is so many calls long, a sitting so many seconds.
"""

import sys
from pathlib import Path

import numpy as np

from prunefleet.agent.measure.benchmark import DENSE, MeasurementSetup, compare_many
from prunefleet.agent.measure.device import fingerprint
from prunefleet.agent.measure.exported import Exported, sized
from prunefleet.agent.measure.rounds import WARM_UP_CALLS, slot
from prunefleet.agent.measure.runners.base import OpenVINORunner

INPUT = (1, 3, 128, 128)


def calls_in(model: Exported, seconds: float) -> int:
    """About how many single calls fill that time on this host."""
    session = OpenVINORunner().load(model)
    slot(session, WARM_UP_CALLS)
    return max(1, round(seconds * 1e3 / float(np.median(slot(session, WARM_UP_CALLS)))))


def in_a_row(model: Exported, calls: int) -> float:
    """Median of single calls in milliseconds, one after the other."""
    session = OpenVINORunner().load(model)
    slot(session, WARM_UP_CALLS)
    print("ready", flush=True)
    return float(np.median(slot(session, calls)))


def in_turns(model: Exported, seed: int, seconds: float) -> float:
    """The same as a trial measures, several loads of the network taking turns."""
    sitting = compare_many(
        {},
        model,
        MeasurementSetup(
            runner=OpenVINORunner(), device=fingerprint(), seed=seed, throughput_s=0, time_limit_s=seconds
        ),
    )
    return sitting.latencies[DENSE].p50_ms


if __name__ == "__main__":
    what, xml, seed, length = sys.argv[1:]
    if what == "sitting":
        print("ready", flush=True)
    model = sized(Path(xml), "f32", INPUT)
    print(in_a_row(model, int(length)) if what == "slot" else in_turns(model, int(seed), float(length)))
