"""What a point is worth trying: expected improvement over samples of the models, times the chance that it can be had.

Sources: expected improvement, Jones et al. 1998; its smooth logarithm, which keeps a slope where the improvement is
nearly nothing, Ament et al. 2023 (arXiv:2310.20708); expected hypervolume improvement, Emmerich et al. 2006.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtri
from scipy.stats import qmc

Floats = NDArray[np.float64]

HOPELESS = 1e-6  # the share of its own area that a point counts for which adds nothing to the front
REACH = 0.15  # how far an infeasible point is felt, in root-mean-square distance of features in [0, 1]


def normals(count: int, columns: int, seed: int) -> Floats:
    """`count` quasi-random draws [count, columns] from the standard normal distribution; `count` is a power of two."""
    points = qmc.Sobol(columns, scramble=True, rng=seed).random(count)
    return np.asarray(ndtri(np.clip(points, 1e-6, 1 - 1e-6)))


def log_expected_improvement(values: Floats, best: float, blur: float) -> Floats:
    """The logarithm of the mean improvement over `best` of sampled `values` [samples, points]; higher is better.

    `blur`, in units of the values, softens the corner at `best`, so that hopeless points still differ.
    """
    gain = (values - best) / blur
    soft = np.where(gain < -30, gain, np.log(np.logaddexp(0.0, np.maximum(gain, -30))))
    return np.asarray(logsumexp(soft, axis=0) + np.log(blur / len(values)))


def log_expected_area(first: Floats, second: Floats, front: Floats) -> Floats:
    """The logarithm [points] of the mean area that sampled gains add to what a `front` of gains [m, 2] dominates.

    `first` and `second` are the two gains [samples, points], the larger the better and above 0. Where no sample adds
    anything, the point of the largest area of its own is the least hopeless.
    """
    order = np.argsort(front[:, 0], kind="stable")
    edges = np.concatenate([[0.0], front[order, 0], [np.inf]])
    # The height of the front over each stretch of the first gain: the best second gain from there on.
    heights = np.append(np.maximum.accumulate(front[order[::-1], 1])[::-1], 0.0)
    added = np.zeros_like(first)
    for begin, end, height in zip(edges[:-1], edges[1:], heights, strict=True):
        added += np.clip(first - begin, 0.0, end - begin) * np.maximum(second - height, 0.0)
    own = first * second
    return np.asarray(np.log(added.mean(axis=0) + HOPELESS * own.mean(axis=0)))


def possible(features: Floats, had: Floats, impossible: Floats) -> Floats:
    """The chance [n] that a network can be had at `features` [n, d], by nearness to trials that were and were not.

    All features lie in [0, 1]. One without impossible trials; a kernel vote with a prior weight of one for "yes" else.
    """
    if not len(impossible):
        return np.ones(len(features))
    yes, no = _nearness(features, had), _nearness(features, impossible)
    return np.asarray((1 + yes) / (1 + yes + 2 * no))


def _nearness(features: Floats, others: Floats) -> Floats:
    distance = ((features[:, None, :] - others[None, :, :]) ** 2).mean(axis=2)
    return np.asarray(np.exp(-distance / (2 * REACH**2)).sum(axis=1))
