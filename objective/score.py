"""What a measurement is worth: one formula per goal, one scalar to maximise, with its terms so that a page can say why.

``fastest`` and ``most_accurate`` have a limit, and a plain Bayesian controller must be able to climb towards it from
either side. With slack (how far within the limit, 0 on it) and a gain g in (0, 1) that rises as the candidate gets
better in what is optimised:

    slack ≥ 0 (feasible):    (1 − exp(−slack/τ)) · g            in [0, 1)
    slack < 0 (infeasible): −(1 − exp( slack/σ)) · (1 − g/2)    in (−1, 0)

Both ends meet at 0 on the limit, so the score is continuous; it rises with slack and with g; and feasible ≥ 0 >
infeasible. τ is small (a fiftieth of the limit): away from the limit only g counts, and a candidate whose slack is
within noise of 0 is worth less than one that holds the limit clearly. No term has a unit of time: latency enters as a
ratio to the dense model, or, where the limit is in milliseconds, as a ratio to that limit.

``tradeoff`` is metric · ratio^weight (Tan et al., MnasNet, CVPR 2019, equation 2). ``pareto`` is the area that the
candidate alone would dominate under the reference point of :mod:`objective.pareto`, its two sides smoothed so that it
never is flat.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from objective.errors import BadInput
from objective.goal import Goal, Kind
from objective.pareto import REFERENCE
from objective.trial import Measurement, Score

Floats = NDArray[np.float64]

TAU_SHARE = 0.02
LEAST_TAU = 1e-4
DROP_SIGMA = 0.01
DROP_SCALE = 0.1  # most_accurate: a drop of 10 points costs a factor e
DROP_SOFTNESS, RATIO_SOFTNESS = 0.01, 0.05


def score(measurement: Measurement, goal: Goal) -> Score:
    """Return what ``measurement`` is worth to ``goal``, by its worst device.

    Raises:
        BadInput: the goal's metric is not the one that was measured.
    """
    if measurement.accuracy.metric != goal.metric:
        raise BadInput("objective.metric", goal.metric, f"the trial measured {measurement.accuracy.metric}")
    metric, drop = measurement.accuracy.val, measurement.metric_drop
    worst = measurement.worst
    value = float(values(metric, drop, worst.ratio, goal, worst.baseline_p50_ms))
    found = {"metric": metric, "drop": drop, "latency_ratio": worst.ratio}
    slack = _slack(np.float64(drop), np.float64(worst.ratio), goal, worst.baseline_p50_ms)
    if slack is None:
        return Score(value, True, found)
    return Score(value, bool(slack >= 0), {**found, "slack": float(slack)})


def values(
    metric: ArrayLike, drop: ArrayLike, ratio: ArrayLike, goal: Goal, baseline_ms: float | None = None
) -> Floats:
    """Return the scores of many candidates at once, by the same formula; inputs broadcast.

    Args:
        metric: the quality metric, a fraction.
        drop: the dense model's metric minus the candidate's.
        ratio: latency over the dense model's.
        goal: what the sweep is after.
        baseline_ms: the dense model's median latency; needed where the goal's limit is in milliseconds.

    Raises:
        BadInput: the limit is in milliseconds and ``baseline_ms`` is not given.
    """
    metric, drop, ratio = (np.asarray(each, dtype=np.float64) for each in (metric, drop, ratio))
    slack = _slack(drop, ratio, goal, baseline_ms)
    if slack is None:
        return _tradeoff(metric, ratio, goal) if goal.kind == Kind.TRADEOFF else _pareto(drop, ratio)
    if goal.kind == Kind.FASTEST:
        limit = goal.max_drop or 0.0
        return _limited(slack, 1 / (1 + ratio), max(TAU_SHARE * limit, LEAST_TAU), max(limit, DROP_SIGMA))
    # A sigmoid, for a drop may be negative: pruned networks sometimes gain.
    return _limited(slack, 1 / (1 + np.exp(drop / DROP_SCALE)), TAU_SHARE, 1.0)


def _slack(drop: Any, ratio: Any, goal: Goal, baseline_ms: float | None) -> Floats | None:
    """Return how far within its limit a candidate is, in the limit's own terms; None where the goal has no limit."""
    if goal.kind == Kind.FASTEST:
        return np.asarray((goal.max_drop or 0.0) - drop)
    if goal.kind != Kind.MOST_ACCURATE:
        return None
    used = []
    if goal.max_latency_ratio is not None:
        used.append(ratio / goal.max_latency_ratio)
    if goal.max_latency_ms is not None:
        if baseline_ms is None:
            raise BadInput("baseline_ms", None, "give the dense model's latency: the limit is in milliseconds")
        used.append(ratio * baseline_ms / goal.max_latency_ms)
    return np.asarray(1 - np.maximum.reduce(np.broadcast_arrays(*used)), dtype=np.float64)


def _limited(slack: Floats, gain: Floats, tau: float, sigma: float) -> Floats:
    feasible = -np.expm1(-np.maximum(slack, 0) / tau) * gain
    infeasible = np.expm1(np.minimum(slack, 0) / sigma) * (1 - gain / 2)
    return np.asarray(np.where(slack >= 0, feasible, infeasible), dtype=np.float64)


def _tradeoff(metric: Floats, ratio: Floats, goal: Goal) -> Floats:
    return np.asarray(metric * ratio**goal.weight, dtype=np.float64)


def _pareto(drop: Floats, ratio: Floats) -> Floats:
    worst_drop, worst_ratio = REFERENCE
    sides = _soft(worst_drop - drop, DROP_SOFTNESS) / worst_drop, _soft(worst_ratio - ratio, RATIO_SOFTNESS)
    return np.asarray(sides[0] * sides[1], dtype=np.float64)


def _soft(side: Floats, softness: float) -> Floats:
    """Return ``max(side, 0)`` with its corner rounded over ``softness``: always above 0 and rising."""
    return np.asarray(softness * np.logaddexp(0, side / softness), dtype=np.float64)
