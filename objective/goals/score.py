"""What a measurement is worth: one formula per goal, one scalar to maximise, with its terms so that a page can say why.

Latency and quality become *gains*. Each is what is left of a budget of 1, the dense latency or a drop of ten points
(the reference point of :mod:`prunefleet.objective.goals.pareto`), and never quite 0:

    speed = left(latency ratio)      quality = left(drop / 0.10)
    left(x) = 1 − x up to x = 0.9, from there 0.01/(x − 0.8), which goes on with the same value and slope

``tradeoff`` is metric · ratio^weight (Tan et al., MnasNet, CVPR 2019, equation 2). ``pareto`` is quality · speed, the
area that the candidate alone dominates. ``fastest`` (gain g = speed, limit on the drop) and ``most_accurate``
(g = quality, limit on latency) have a limit. With slack, how far a candidate is within it:

    slack ≥ 0 (feasible):    (1 − exp(−slack/τ)) · g            so g itself, but for the last τ before the limit
    slack < 0 (infeasible): −(1 − exp( slack/σ)) / (1 + g)      from −1 to 0

The score is continuous but for a millionth, rises with slack and with g, and its sign says whether the limit holds, so
that a feasible candidate beats every infeasible one. No formula can have all that and rank every feasible candidate by
g: continuity makes all that lie on the limit worth the same, and the fastest admissible one usually lies near it. So
τ is a five-hundredth of the limit: with ``max_drop`` 0.01 a tenth of one image in 5,000, and the candidate with the
largest g within the limit wins. A wide ramp would hand the win to a slower one with accuracy to spare, and help no
search: what a model sees is a step as high as g. That step disturbs it the less the steeper g is beside it,
hence g = 1 − ratio rather than 1/(1 + ratio). σ, three times the limit, keeps a slope towards the limit over the drops
that trials have; 1/(1 + g) keeps one towards less latency. tests/bench/test_objective_search.py compares such choices.

No term has a unit of time: latency enters as a ratio to the dense model, or, where the limit is in milliseconds, as a
ratio to that limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal, Kind
from prunefleet.objective.goals.pareto import REFERENCE
from prunefleet.objective.trial import Latency, Measurement, Score

Floats = NDArray[np.float64]
T = TypeVar("T")

TAIL = 0.1  # the last tenth of a budget, over which a gain bends so as never to reach 0
TAU, SIGMA = 0.002, 3.0  # in units of the limit
LEAST_LIMIT = 0.01  # fastest with max_drop 0 still needs a unit: one point
LATENCY_SIGMA = 0.5  # most_accurate: half the limit too slow costs 1 − 1/e of all there is to lose
ON_LIMIT = 1e-6  # what is left of a gain exactly on the limit: enough to order ties
ROUNDING = 1e-12  # 0.93 − 0.92 is more than 0.01 in floating point
LEAST_RATIO = 1e-6  # samples of a model may fall below 0, latencies do not
GAIN = 0.01  # a pruned network is not expected to beat the dense one by more than one point


def score(measurement: Measurement, goal: Goal) -> Score:
    """Return what ``measurement`` is worth to ``goal``: on several devices, where it is worth least.

    The terms are ``metric``, ``drop``, ``latency_ratio``, the gains ``speed`` and ``quality``, and, where the goal has
    a limit, ``slack``: below 0 the candidate is infeasible.

    Raises:
        BadInput: the goal's metric is not the one that was measured.
    """
    if measurement.accuracy.metric != goal.metric:
        raise BadInput("objective.metric", goal.metric, f"the trial measured {measurement.accuracy.metric}")
    metric, drop = measurement.accuracy.val, measurement.metric_drop

    def on(latency: Latency) -> float:
        return float(values(metric, drop, latency.ratio, goal, latency.baseline_p50_ms))

    worst = min(measurement.latencies, key=lambda each: (on(each), -each.ratio))
    value = on(worst)
    speed, quality = gains(drop, worst.ratio)
    terms = {"metric": metric, "drop": drop, "latency_ratio": worst.ratio, "speed": float(speed)}
    terms["quality"] = float(quality)
    slack = _slack(np.float64(drop), np.float64(worst.ratio), goal, worst.baseline_p50_ms)
    if slack is not None:
        terms["slack"] = float(slack)
    return Score(value, feasible(value), terms)


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
    ratio = np.maximum(ratio, LEAST_RATIO)
    speed, quality = gains(drop, ratio)
    slack = _slack(drop, ratio, goal, baseline_ms)
    if slack is None:
        tradeoff = np.maximum(metric, 0) * ratio**goal.weight
        return np.asarray(tradeoff if goal.kind == Kind.TRADEOFF else quality * speed, dtype=np.float64)
    if goal.kind == Kind.FASTEST:
        limit = max(goal.max_drop or 0.0, LEAST_LIMIT)
        return _limited(slack, speed, TAU * limit, SIGMA * limit)
    return _limited(slack, quality, TAU, LATENCY_SIGMA)


def values_on_all(
    metric: ArrayLike, drop: ArrayLike, timed: Iterable[tuple[ArrayLike, float | None]], goal: Goal
) -> Floats:
    """Return the scores of candidates on several devices: of each the least.

    ``timed`` has, for each device, the latency ratios and the dense model's median latency there; all else is as in
    :func:`values`.
    """
    return np.asarray(np.minimum.reduce([values(metric, drop, ratio, goal, dense_ms) for ratio, dense_ms in timed]))


def gains(drop: ArrayLike, ratio: ArrayLike) -> tuple[Floats, Floats]:
    """Return speed and quality, what is left of the latency's and of the drop's budget; never 0 or less."""
    worst_drop, worst_ratio = REFERENCE
    return _left(np.asarray(ratio) / worst_ratio), _left(np.asarray(drop) / worst_drop)


def bound(ratio: float, goal: Goal, dense_metric: float, baseline_ms: float | None = None, gain: float = GAIN) -> float:
    """Return the best score that a network of this latency can have if it gains at most ``gain`` over the dense model.

    Raises:
        BadInput: the limit is in milliseconds and ``baseline_ms`` is not given.
    """
    return float(values(min(dense_metric + gain, 1.0), -gain, ratio, goal, baseline_ms))


def hopeless(bound: float, incumbent: float | None, goal: Goal) -> bool:
    """Return whether a candidate that scores at most ``bound`` need not be trained: the best so far is above it.

    Never for ``pareto``, where a candidate that scores less may still lie on the front.
    """
    return goal.kind != Kind.PARETO and incumbent is not None and bound < incumbent


def feasible(value: float) -> bool:
    """Return whether a score is that of a candidate within the goal's limits; without a limit all are."""
    return value >= 0


def best(rows: Iterable[T], score_of: Callable[[T], Score | float | None]) -> T | None:
    """Return the row with the best score, feasible ones first; of equal ones the first; None where no row has one.

    Args:
        rows: measurements, runs, table rows: anything.
        score_of: a row's score, or its value; None or not a number where the trial came to none.
    """
    scored = [(_value(score_of(row)), row) for row in rows]
    ranked = [(value, row) for value, row in scored if value is not None]
    return max(ranked, key=lambda entry: (feasible(entry[0]), entry[0]), default=(0.0, None))[1]


def _value(found: Score | float | None) -> float | None:
    value = found.value if isinstance(found, Score) else found
    return None if value is None or not np.isfinite(value) else float(value)


def _left(spent: Any) -> Floats:
    beyond = np.maximum(spent - (1 - TAIL), 0)
    return np.asarray(np.where(beyond > 0, TAIL**2 / (beyond + TAIL), 1 - spent), dtype=np.float64)


def _slack(drop: Any, ratio: Any, goal: Goal, baseline_ms: float | None) -> Floats | None:
    """Return how far within its limit a candidate is: in the metric's unit, or as a share of the limit on latency."""
    if goal.kind == Kind.FASTEST:
        return _rounded((goal.max_drop or 0.0) - drop)
    if goal.kind != Kind.MOST_ACCURATE:
        return None
    used = []
    if goal.max_latency_ratio is not None:
        used.append(ratio / goal.max_latency_ratio)
    if goal.max_latency_ms is not None:
        if baseline_ms is None:
            raise BadInput("baseline_ms", None, "give the dense model's latency: the limit is in milliseconds")
        used.append(ratio * baseline_ms / goal.max_latency_ms)
    return _rounded(1 - np.maximum.reduce(np.broadcast_arrays(*used)))


def _rounded(slack: Any) -> Floats:
    return np.asarray(np.where(np.abs(slack) < ROUNDING, 0.0, slack), dtype=np.float64)


def _limited(slack: Floats, gain: Floats, tau: float, sigma: float) -> Floats:
    within = 1 - (1 - ON_LIMIT) * np.exp(-np.maximum(slack, 0) / tau)
    beyond = np.expm1(np.minimum(slack, 0) / sigma) / (1 + gain)
    return np.asarray(np.where(slack >= 0, within * gain, beyond), dtype=np.float64)
