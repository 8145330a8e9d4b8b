"""Intervals: how sure a measured difference in quality is. Those of latency belong to the session that measured it."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prunefleet.objective.errors import BadInput

Floats = NDArray[np.float64]
Value = Callable[[Floats], Floats]
"""Means of the examples' figures, [..., k], → the quality that they amount to, [...]."""
AT_ONCE = 64  # resamples: so many counts of examples are held in memory


def mean_itself(means: Floats) -> Floats:
    """Return the one figure there is: the quality is the mean over examples."""
    return means[..., 0]


def _filled(field: str, values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise BadInput(field, array.shape, "give one row of figures, all finite, for each of at least one example")
    return array


def _ends(samples: Floats, level: float) -> tuple[float, float]:
    """Return the ends of the middle ``level`` share of ``samples``."""
    tail = 50 * (1 - level)
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)


def wilson_interval(correct: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share of ``correct`` among ``n`` (Wilson, JASA 1927).

    Raises:
        BadInput: ``n`` is below 1 or ``correct`` is not from 0 to ``n``.
    """
    if n < 1 or not 0 <= correct <= n:
        raise BadInput("correct", f"{correct} of {n}", "give a count from 0 to n, and n of at least 1")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, scale = correct / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


def resampled_means(examples: ArrayLike, n: int = 2000, seed: int = 0) -> Floats:
    """Return the means [n, k] of ``n`` resamples of the figures of examples, [examples, k] or [examples].

    Resamples of as many examples with the same ``seed`` are of the same examples: so networks are compared in pairs.

    Raises:
        BadInput: there is no example, or a figure is not finite.
    """
    figures, rng = _filled("examples", examples), np.random.default_rng(seed)
    size, means = len(figures), np.empty((n, figures.shape[1]))
    for first in range(0, n, AT_ONCE):
        drawn = [
            np.bincount(rng.integers(0, size, size), minlength=size) for _ in range(first, min(first + AT_ONCE, n))
        ]
        means[first : first + AT_ONCE] = np.array(drawn, dtype=np.float64) @ figures / size
    return means


def bootstrap_interval(
    examples: ArrayLike, value: Value = mean_itself, level: float = 0.95, n: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the ends of the percentile bootstrap interval of a quality (Efron and Tibshirani 1993, chapter 13).

    Args:
        examples: figures of each example, [n, k] or [n].
        value: what the means of the figures amount to.
        level: the share of resamples between the ends.
        n: the number of resamples.
        seed: of the resampling.

    Raises:
        BadInput: there is no example, or a figure is not finite.
    """
    return _ends(value(resampled_means(examples, n, seed)), level)


def paired_bootstrap_difference(
    ours: ArrayLike, theirs: ArrayLike, value: Value = mean_itself, level: float = 0.95, n: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the quality of ``ours`` less that of ``theirs`` over the same examples, and its bootstrap interval.

    Args:
        ours: figures of each example, [n, k] or [n].
        theirs: the same of the other network.
        value: what the means of the figures amount to.
        level: the share of resamples between the ends.
        n: the number of resamples.
        seed: of the resampling.

    Raises:
        BadInput: the lists differ in length, or one is empty or not finite.
    """
    first, second = _filled("ours", ours), _filled("theirs", theirs)
    if len(first) != len(second):
        raise BadInput(
            "theirs", len(second), f"give as many values as ours, {len(first)}: they are compared one by one"
        )
    low, high = _ends(value(resampled_means(first, n, seed)) - value(resampled_means(second, n, seed)), level)
    return float(value(first.mean(0)) - value(second.mean(0))), low, high
