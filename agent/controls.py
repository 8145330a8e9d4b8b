"""What a winner has to beat: the dense network, and uniform pruning on the same channel grid.

All are measured in one sitting and judged on the same test examples; uniform pruning is compared between its rungs too,
at the winner's latency and at the winner's quality.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from agent.measure.benchmark import Sitting
from agent.tasks.task import Task
from objective.stats import paired_bootstrap_difference, wilson_interval
from objective.trial import Latency

Floats = NDArray[np.float64]
RESAMPLES = 1000


@dataclass(frozen=True)
class Judged:
    """A network with its test quality: a fraction, and per example 0 or 1 where the task can tell."""

    kept: Mapping[str, int]
    network: nn.Module
    metric: float
    correct: Floats | None = None

    def quality(self) -> dict[str, float]:
        """Test metric with its 95 % Wilson interval, where examples are known."""
        if self.correct is None:
            return {"test": self.metric}
        low, high = wilson_interval(int(self.correct.sum()), len(self.correct))
        return {"test": self.metric, "test_lo": low, "test_hi": high}

    def drop_from(self, dense: "Judged") -> dict[str, float]:
        """What it loses on test against the dense network, with a paired 95 % interval where examples are known."""
        if self.correct is None or dense.correct is None:
            return {"test_drop": dense.metric - self.metric}
        drop, low, high = paired_bootstrap_difference(dense.correct, self.correct)
        return {"test_drop": drop, "test_drop_lo": low, "test_drop_hi": high}


def judge(task: Task, network: nn.Module, kept: Mapping[str, int], metric: str) -> Judged:
    """Read the test split once for this network."""
    correct = getattr(task, "correct", None)
    if correct is None or metric != task.metrics[0]:
        return Judged(kept, network, task.evaluate(network, "test")[metric])
    found: torch.Tensor = correct(network, "test")
    values = found.numpy().astype(np.float64)
    return Judged(kept, network, float(values.mean()), values)


def timing(sitting: Sitting, name: str) -> dict[str, float]:
    """A network's latency in the sitting: ratio to the dense one and milliseconds, with 95 % intervals."""
    latency: Latency = sitting.latencies[name]
    low, high = sitting.interval_ms(name)
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
    """A network's quality per example (or one value for all) and the times of its slots in the sitting."""

    quality: Floats
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
    random = np.random.default_rng(seed)
    whole = _compare(points, None, None)
    drawn = np.array([_compare(points, *_draw(points, random)) for _ in range(n)])
    ends = np.percentile(drawn, [2.5, 97.5], axis=0)
    found = {key: (float(whole[i]), float(ends[0, i]), float(ends[1, i])) for i, key in enumerate(_KEYS)}
    return {
        "equal_latency": _spread("test", found["test"]) | _spread("gain", found["gain"]),
        "equal_quality": _spread("latency_ratio", found["latency_ratio"]) | _spread("saved", found["saved"]),
    }


_KEYS = ("test", "gain", "latency_ratio", "saved")


def _spread(key: str, values: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((key, f"{key}_lo", f"{key}_hi"), values, strict=True))


def _draw(points: Sequence[Point], random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    examples, rounds = len(points[0].quality), len(points[0].slots)
    return random.integers(0, examples, examples), random.integers(0, rounds, rounds)


def _compare(
    points: Sequence[Point], examples: NDArray[np.int64] | None, rounds: NDArray[np.int64] | None
) -> tuple[float, float, float, float]:
    """Quality of the line and gain at equal latency; latency of the line and share saved at equal quality."""
    quality = [float((each.quality if examples is None else each.quality[examples]).mean()) for each in points]
    p10 = [float(np.percentile(each.slots if rounds is None else each.slots[rounds], 10)) for each in points]
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
