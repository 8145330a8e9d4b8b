"""What a point is worth trying: expected improvement over samples of the models, times the chance that it can be had.

Sources: expected improvement, Jones et al. 1998; its smooth logarithm, which keeps a slope where the improvement is
nearly nothing, Ament et al. 2023 (arXiv:2310.20708).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtri
from scipy.stats import qmc

Floats = NDArray[np.float64]

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
