"""Intervals: how sure a measured difference in quality is. Those of latency belong to the sitting that measured it."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from objective.errors import BadInput

Floats = NDArray[np.float64]


def _filled(field: str, values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise BadInput(field, array.shape, "give at least one value, all finite, in one dimension")
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


def paired_bootstrap_difference(
    ours: ArrayLike, theirs: ArrayLike, level: float = 0.95, n: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the mean of ``ours − theirs`` over the same examples, with the ends of its bootstrap interval.

    Raises:
        BadInput: the lists differ in length, or one is empty or not finite.
    """
    first, second = _filled("ours", ours), _filled("theirs", theirs)
    if len(first) != len(second):
        raise BadInput(
            "theirs", len(second), f"give as many values as ours, {len(first)}: they are compared one by one"
        )
    differences = first - second
    rng = np.random.default_rng(seed)
    means = np.array([differences[rng.integers(0, len(differences), len(differences))].mean() for _ in range(n)])
    low, high = _ends(means, level)
    return float(differences.mean()), low, high
