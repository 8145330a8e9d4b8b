"""What a winner has to beat: the dense network, and uniform pruning on the same channel grid.

All are measured in one session and evaluated on the same test examples. Uniform pruning is compared between its rungs
too: at the winner's latency and at the winner's quality.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from prunefleet.agent.measure.benchmark import MeasurementSession
from prunefleet.agent.tasks.task import Task, quality_of
from prunefleet.objective.goals.stats import (
    OfMeans,
    Quality,
    bootstrap_interval,
    paired_bootstrap_difference,
    wilson_interval,
)
from prunefleet.objective.trial import Latency

Floats = NDArray[np.float64]
RESAMPLES = 1000


@dataclass(frozen=True)
class Evaluated:
    """A network with its test metric, a fraction, and `on_test`, what its interval is made of.

    A task that tells nothing of single examples leaves `on_test` None.
    """

    kept: Mapping[str, int]
    network: nn.Module
    metric: float
    on_test: Quality | None = None

    def quality(self) -> dict[str, float]:
        """Test metric with its 95 % interval where examples are known: Wilson's for a share, else by bootstrap."""
        if self.on_test is None:
            return {"test": self.metric}
        share = _share(self.on_test, self.metric)
        low, high = wilson_interval(*share) if share else bootstrap_interval(self.on_test)
        return {"test": self.metric, "test_lo": low, "test_hi": high}

    def drop_from(self, dense: "Evaluated") -> dict[str, float]:
        """What it loses on test against the dense network, with a paired 95 % interval where examples are known."""
        if self.on_test is None or dense.on_test is None:
            return {"test_drop": dense.metric - self.metric}
        drop, low, high = paired_bootstrap_difference(dense.on_test, self.on_test)
        return {"test_drop": drop, "test_drop_lo": low, "test_drop_hi": high}


def _share(quality: Quality, metric: float) -> tuple[int, int] | None:
    """Found and total where the metric is a share: of all examples, or of those that a second column marks.

    Only then Wilson's interval holds; a bootstrap of a share of all or none would be no interval at all.
    """
    if not isinstance(quality, OfMeans):
        return None
    examples = quality.columns
    found, total = examples[:, 0], examples[:, 1] if examples.shape[1] == 2 else np.ones(len(examples))
    marked = examples.shape[1] <= 2 and np.isin(examples, (0, 1)).all() and (found <= total).all() and total.any()
    return (int(found.sum()), int(total.sum())) if marked and np.isclose(found.sum() / total.sum(), metric) else None


def evaluate(task: Task, network: nn.Module, kept: Mapping[str, int], metric: str) -> Evaluated:
    """Read the test split once for this network."""
    found = quality_of(task, network, "test", metric)
    whole = task.evaluate(network, "test")[metric] if found is None else found.whole()
    return Evaluated(kept, network, whole, found)


def latency_of(session: MeasurementSession, name: str) -> dict[str, float]:
    """A network's latency in the measurement session: ratio to the dense one and milliseconds, with 95 % intervals."""
    latency: Latency = session.latencies[name]
    low, high = session.interval_ms(name)
    return {
        "latency_ratio": latency.ratio,
        "latency_ratio_lo": latency.ratio_lo,
        "latency_ratio_hi": latency.ratio_hi,
        "latency_p10_ms": latency.p10_ms,
        "latency_p10_ms_lo": low,
        "latency_p10_ms_hi": high,
        "latency_p50_ms": latency.p50_ms,
        "throughput_fps": latency.throughput_fps,
    }


@dataclass(frozen=True)
class Point:
    """A network's quality, and the times of its slots in the session."""

    quality: Quality
    slots: Floats


def against_uniform(
    winner: Point, uniform: Sequence[Point], dense: Point, n: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """The winner against the line through the dense network and the `uniform` rungs.

    Returns `equal_latency`: test of the line at the winner's latency ratio, and the winner's `gain` over it;
    `equal_quality`: latency ratio of the line at the winner's quality, and the share of it that the winner `saved`.
    Each has the ends of a 95 % interval from `n` resamples of examples and of rounds, drawn alike for all networks.
    """
    points = [winner, dense, *uniform]
    whole = _compare([each.quality.whole() for each in points], [_p10(each.slots) for each in points])
    qualities = np.array([each.quality.resampled(n, seed) for each in points]).T
    random, rounds = np.random.default_rng(seed), len(dense.slots)
    rows = [random.integers(0, rounds, rounds) for _ in range(n)]
    drawn = np.array(
        [
            _compare(quality, [_p10(each.slots[row]) for each in points])
            for quality, row in zip(qualities.tolist(), rows, strict=True)
        ]
    )
    ends = np.percentile(drawn, [2.5, 97.5], axis=0)
    found = {key: (float(whole[i]), float(ends[0, i]), float(ends[1, i])) for i, key in enumerate(_KEYS)}
    return {
        "equal_latency": _spread("test", found["test"]) | _spread("gain", found["gain"]),
        "equal_quality": _spread("latency_ratio", found["latency_ratio"]) | _spread("saved", found["saved"]),
    }


_KEYS = ("test", "gain", "latency_ratio", "saved")


def _spread(key: str, values: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((key, f"{key}_lo", f"{key}_hi"), values, strict=True))


def _p10(slots: Floats) -> float:
    return float(np.percentile(slots, 10))


def _compare(quality: Sequence[float], p10: Sequence[float]) -> tuple[float, float, float, float]:
    """Quality of the line and gain at equal latency; latency of the line and share saved at equal quality.

    Of each: the winner's first, then the dense network's, then the rungs'.
    """
    ratio = [each / p10[1] for each in p10]
    at_latency, at_quality = line(ratio[1:], quality[1:], ratio[0], quality[0])
    return at_latency, quality[0] - at_latency, at_quality, 1 - ratio[0] / at_quality


def line(ratios: Sequence[float], qualities: Sequence[float], ratio: float, quality: float) -> tuple[float, float]:
    """Quality at `ratio`, and latency ratio at `quality`, of the line through points (ratio, quality).

    Slower points that are no better do not count: nobody would choose them. Beyond its ends the line stays level.
    """
    order = np.argsort(ratios)
    xs, ys = np.array(ratios)[order], np.maximum.accumulate(np.array(qualities)[order])
    rising = ys + np.arange(len(ys)) * 1e-12  # strictly, so that the inverse takes the fastest of equals
    return float(np.interp(ratio, xs, ys)), float(np.interp(quality, rising, xs))
