"""How sure a percentile of slots is when slots come from several loads of the same network.

Two loads of one network differ by half a percent or more, for they lie elsewhere in memory; slots of one load differ by
less. An interval from slots alone would be too narrow, so loads are drawn anew as well as the slots within them
(two-stage bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). What sets one
measurement session apart from the next cannot be seen from within: it is allowed for by a constant.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

QUANTILE = 10
DRAWS = 2000
"""Of an interval that is reported."""
BLOCK = 20
"""Rounds that last a fifth of a second together."""
BETWEEN_SESSIONS = 0.01
"""Relative standard deviation allowed for between sessions minutes apart; docs/measurement.md has what was measured."""


def redraw(rounds: int, loads: int, draws: int, seed: int) -> NDArray[np.int64]:
    """[draws, rounds] indices of rounds, drawn by load and then within the load; round i belongs to load i % loads.

    `rounds` is a multiple of `loads`.
    """
    random = np.random.default_rng(seed)
    per_load = rounds // loads
    load = random.integers(0, loads, (draws, loads, 1))
    turn = random.integers(0, per_load, (draws, loads, per_load))
    return (turn * loads + load).reshape(draws, -1)


def ratio_interval(
    candidate: Samples, dense: Samples, loads: int, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float, float]:
    """Ratio of the 10th percentiles of two rows of slots, and the ends of its 95 % interval in this session.

    Slots of one round were slowed together, so they are drawn together; both rows have one length.
    """
    drawn = redraw(len(candidate), loads, draws, seed)
    ratios = np.percentile(candidate[drawn], QUANTILE, axis=1) / np.percentile(dense[drawn], QUANTILE, axis=1)
    ratio = p10(candidate) / p10(dense)
    low, high = _middle(ratios)
    return ratio, min(low, ratio), max(high, ratio)


def widened(middle: float, low: float, high: float) -> tuple[float, float]:
    """The ends of a 95 % interval, with what measurement sessions differ by added in quadrature."""
    allowed = 1.96 * BETWEEN_SESSIONS * middle
    return middle - math.hypot(middle - low, allowed), middle + math.hypot(high - middle, allowed)


def time_interval(slots: Samples, loads: int, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the 10th percentile of slots in this measurement session, in their unit."""
    return _middle(np.percentile(slots[redraw(len(slots), loads, DRAWS, seed)], QUANTILE, axis=1))


def p10(samples: Samples | Iterable[float]) -> float:
    """The 10th percentile."""
    return float(np.percentile(np.asarray(samples), QUANTILE))


def _middle(samples: Samples) -> tuple[float, float]:
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


def drift(slots: Samples) -> float:
    """How far the 10th percentiles of the first and the second half of the slots lie apart, relative to the smaller."""
    halves = [p10(half) for half in np.array_split(slots, 2) if len(half)]
    return max(halves) / min(halves) - 1


def ratio_drift(candidate: Samples, dense: Samples) -> float:
    """How far the ratio moved during the rounds, relative to itself: 0 if it stayed.

    The larger of two differences: between the first and the second half, and between all rounds and the median of
    blocks of `BLOCK`. A processor that was faster for a while, in the middle of a session, shows in the second: the
    fastest tenth may then be that while's for one network alone.
    """
    middle = len(dense) // 2
    halves = [p10(candidate[part]) / p10(dense[part]) for part in (slice(0, middle), slice(middle, None))]
    parted = max(halves) / min(halves) - 1
    whole = len(dense) // BLOCK * BLOCK
    if whole < 2 * BLOCK:
        return parted
    low = [np.percentile(each[:whole].reshape(-1, BLOCK), QUANTILE, axis=1) for each in (candidate, dense)]
    return max(parted, abs(p10(candidate) / p10(dense) / float(np.median(low[0] / low[1])) - 1))


def half_width(ratio: float, low: float, high: float) -> float:
    """Half of an interval's width, relative to the ratio."""
    return (high - low) / 2 / ratio
