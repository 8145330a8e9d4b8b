"""Gaussian processes for the controller: what is expected at a point, and how sure that is.

Hyperparameters are fitted once per set of answers (`MarginalLikelihood`); pending points are then imputed:
they join as observations of what the model expects there (Ginsbourger et al. 2010), without another fit.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, cho_solve, cholesky, lapack
from scipy.optimize import minimize

from prunefleet.infra.controller.models.kernels import FittedKernel, Floats, MarginalLikelihood, noise_prior
from prunefleet.infra.controller.models.kernels import KernelSpec as KernelSpec

Ints = NDArray[np.int64]

FIT_STEPS = 40
MOST_FITTED = 200  # observations that find the hyperparameters
MOST_OBSERVED, EXTREMES = 1000, 100  # observations that a process knows: a sample, and the largest and smallest
LEAST_VARIANCE = 1e-10  # of a prediction, in units of the scaled observations


class Surrogate:
    """A fitted Gaussian process, conditioned on points [n, d] and observations [n] (`seen`: shifted and scaled)."""

    def __init__(self, kernel: FittedKernel, points: Floats, seen: Floats, shift: float, scale: float) -> None:
        self._kernel, self._points, self._seen, self._shift, self._scale = kernel, points, seen, shift, scale
        self._factor = cholesky(kernel.gram(points), lower=True, check_finite=False)
        self._weights = cho_solve((self._factor, True), seen - kernel.mean(points), check_finite=False)
        # Thousands of points are asked about: a product with the inverse takes a third of the time of solving.
        self._inverse = np.asfortranarray(lapack.dtrtri(self._factor, lower=1)[0].T)

    def predict(self, points: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation [n] of the noise-free function at `points` [n, d], each point by itself."""
        cross = self._kernel.covariance(points, self._points)
        mean = self._kernel.mean(points) + cross @ self._weights
        known = np.square(blas.dtrmm(1.0, self._inverse, cross.T, trans_a=1)).sum(axis=0)
        left = np.maximum(self._kernel.variance(points) - known, LEAST_VARIANCE)
        return mean * self._scale + self._shift, np.sqrt(left) * self._scale

    def with_pending(self, points: Floats) -> Surrogate:
        """Return the process with pending `points` [n, d] imputed: observed as it expects them."""
        if not len(points):
            return self
        mean, _ = self.predict(points)
        expected = (mean - self._shift) / self._scale
        more = np.concatenate([self._points, points])
        return Surrogate(self._kernel, more, np.concatenate([self._seen, expected]), self._shift, self._scale)

    def conditioned_on(self, points: Floats, observations: Floats) -> Surrogate:
        """Return the process with the same hyperparameters, conditioned on these observations instead of its own."""
        return Surrogate(self._kernel, points, (observations - self._shift) / self._scale, self._shift, self._scale)

    def left_out(self) -> Floats:
        """The logarithm [n] of each observation's probability density, given the others (in scaled units).

        Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equations 5.10 to 5.12.
        """
        precision = lapack.dpotri(self._factor, lower=1)[0].diagonal()
        return np.asarray((np.log(precision) - math.log(2 * math.pi) - self._weights**2 / precision) / 2)

    @property
    def noise(self) -> float:
        """The fitted standard deviation of an observation, in its own unit."""
        return math.sqrt(self._kernel.noise) * self._scale


def fit(
    points: Floats, observations: Floats, spec: KernelSpec, first: int | None = None, most: int = MOST_FITTED
) -> Surrogate:
    """The process of this `spec` with the most probable hyperparameters, for `points` [n, d] and `observations` [n].

    Hyperparameters come from the `first` ones (all, unless given), so that not every new answer costs a fit. The cost
    grows with the cube of their number: of more than `most` a sample finds the hyperparameters, and of very many the
    process is conditioned on a larger sample, and all the extreme ones.
    """
    first = len(points) if first is None else first
    chosen = np.arange(first)
    if first > most:
        chosen = np.sort(_shuffled(points[:first], observations[:first])[:most])
    process = _fitted(_Sample(points[chosen], observations[chosen]), spec)
    if len(chosen) == len(points):
        return process
    observed = np.arange(len(points))
    if len(points) > MOST_OBSERVED:
        ends = np.argsort(observations, kind="stable")[np.r_[:EXTREMES, -EXTREMES:0]]
        observed = np.union1d(_shuffled(points, observations)[:MOST_OBSERVED], ends)
    return process.conditioned_on(points[observed], observations[observed])


def _shuffled(points: Floats, observations: Floats) -> Ints:
    """The places of all observations in an order that each one's own numbers decide."""
    rows = np.column_stack([points, observations])
    ranks = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    return np.array(sorted(range(len(ranks)), key=ranks.__getitem__), dtype=np.int64)


class _Sample:
    """Points and observations as a key."""

    def __init__(self, points: Floats, observations: Floats) -> None:
        self.points, self.observations = points, observations
        self._key = (points.shape, points.tobytes(), observations.tobytes())

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Sample) and self._key == other._key


@lru_cache(maxsize=8)
def _fitted(sample: _Sample, spec: KernelSpec) -> Surrogate:
    """Remembered: the suggestions of one batch, and often those of the next, stand on the same fit."""
    points, observations = sample.points, sample.observations
    shift = float(observations.mean()) if spec.centred else 0.0
    spread = float(np.sqrt(np.mean((observations - shift) ** 2)))
    scale = spec.scale or max(spread, 1e-9)
    seen = (observations - shift) / scale
    likelihood = MarginalLikelihood(spec, points, seen, noise_prior(spec, scale))
    # A fit that stops at its step limit is good enough; what would matter shows in the predictions.
    found = minimize(
        likelihood,
        likelihood.start,
        jac=True,
        bounds=likelihood.bounds,
        method="L-BFGS-B",
        options={"maxiter": FIT_STEPS},
    )
    # Numerically hopeless data: the priors' own values serve until more is known.
    vector = found.x if math.isfinite(found.fun) else likelihood.start
    return Surrogate(likelihood.kernel(vector), points, seen, shift, scale)
