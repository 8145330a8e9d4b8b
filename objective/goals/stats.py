"""Intervals: how sure a measured difference in quality is. Those of latency belong to the session that measured it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prunefleet.objective.errors import BadInput

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Value = Callable[[Floats], Floats]
"""Means of the examples' figures, [..., k], → the quality that they amount to, [...]."""
Metric = Callable[[Rows], float]
"""Numbers of examples, [n], where one may come several times → the quality on these."""
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


def _drawn(size: int, n: int, seed: int) -> Iterator[Rows]:
    """Give ``n`` resamples of ``size`` examples as their numbers [size]: the same for the same size and seed."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        yield rng.integers(0, size, size)


class Quality(Protocol):
    """A network's quality on some examples, and on resamples of them.

    Resamples of as many examples with the same seed are of the same examples: so networks are compared in pairs.
    """

    resamples: ClassVar[int]
    """How many an interval is made of."""

    @property
    def count(self) -> int:
        """The number of examples."""

    def whole(self) -> float:
        """Return the quality on all examples, each once."""

    def resampled(self, n: int, seed: int = 0) -> Floats:
        """Return the quality on ``n`` resamples, [n]."""


@dataclass(frozen=True)
class OfMeans:
    """A quality that `value` makes of the means of what examples contribute, `figures` [n, k] or [n].

    Raises:
        BadInput: there is no example, or a figure is not finite.
    """

    figures: ArrayLike
    value: Value = mean_itself
    resamples: ClassVar[int] = 2000

    def __post_init__(self) -> None:
        object.__setattr__(self, "figures", _filled("examples", self.figures))

    @property
    def columns(self) -> Floats:
        """The figures, [n, k]."""
        return np.asarray(self.figures)

    @property
    def count(self) -> int:
        """The number of examples."""
        return len(self.columns)

    def whole(self) -> float:
        """Return the quality on all examples, each once."""
        return float(self.value(self.columns.mean(0)))

    def resampled(self, n: int, seed: int = 0) -> Floats:
        """Return the quality on ``n`` resamples, [n]."""
        drawn, means = _drawn(self.count, n, seed), np.empty((n, self.columns.shape[1]))
        for first in range(0, n, AT_ONCE):
            counts = [np.bincount(next(drawn), minlength=self.count) for _ in range(first, min(first + AT_ONCE, n))]
            means[first : first + AT_ONCE] = np.array(counts, dtype=np.float64) @ self.columns / self.count
        return self.value(means)


@dataclass(frozen=True)
class Recomputed:
    """A quality that is computed anew, by `metric`, on each resample of `count` examples; each result is kept.

    Raises:
        BadInput: there is no example, `metric` raised an exception, or a result is not finite.
    """

    count: int
    metric: Metric
    resamples: ClassVar[int] = 1000
    _known: dict[tuple[int, int], Floats] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise BadInput("examples", self.count, "give at least one example")

    def whole(self) -> float:
        """Return the quality on all examples, each once."""
        return self._of(np.arange(self.count))

    def resampled(self, n: int, seed: int = 0) -> Floats:
        """Return the quality on ``n`` resamples, [n]."""
        if (n, seed) not in self._known:
            self._known[n, seed] = np.array([self._of(rows) for rows in _drawn(self.count, n, seed)])
        return self._known[n, seed]

    def _of(self, rows: Rows) -> float:
        got: object
        try:
            got = found = float(self.metric(rows))
            if math.isfinite(found):
                return found
        except Exception as error:  # the user's code, which may not be ready for a class that is left out
            got = f"{type(error).__name__}: {error}"
        missing = self.count - len(np.unique(rows))
        remedy = f"let it be finite on any examples: here {missing} of {self.count} are left out, others come twice"
        raise BadInput("the function of `resampled`", got, remedy)


def bootstrap_interval(
    quality: Quality, level: float = 0.95, n: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """Return the ends of the percentile bootstrap interval of a quality (Efron and Tibshirani 1993, chapter 13).

    Args:
        quality: of the network.
        level: the share of resamples between the ends.
        n: the number of resamples; the quality's own unless given.
        seed: of the resampling.

    Raises:
        BadInput: the quality of a resample is not finite.
    """
    return _ends(quality.resampled(n or quality.resamples, seed), level)


def paired_bootstrap_difference(
    ours: Quality, theirs: Quality, level: float = 0.95, n: int | None = None, seed: int = 0
) -> tuple[float, float, float]:
    """Return the quality ``ours`` less ``theirs`` over the same examples, and its bootstrap interval.

    Args:
        ours: quality of one network.
        theirs: quality of the other one.
        level: the share of resamples between the ends.
        n: the number of resamples; that of ``ours`` unless given.
        seed: of the resampling.

    Raises:
        BadInput: the two are not of as many examples, or the quality of a resample is not finite.
    """
    if ours.count != theirs.count:
        remedy = f"give as many values as ours, {ours.count}: they are compared one by one"
        raise BadInput("theirs", theirs.count, remedy)
    n = n or ours.resamples
    low, high = _ends(ours.resampled(n, seed) - theirs.resampled(n, seed), level)
    return ours.whole() - theirs.whole(), low, high
