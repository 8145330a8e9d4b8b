"""Bayesian search over any W&B parameters: a Gaussian process on the sweep's metric, after a few well-spread points.

Numbers enter by their place in their own distribution, so a logarithmic parameter is searched logarithmically; words
enter as one column each. A continuous parameter is searched on levels that differ from suggestion to suggestion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import qmc

from prunefleet.infra.controller.candidates import Best, Floats, Grid, Ints, maximise
from prunefleet.infra.controller.contract import Exhausted, StoredTrial, Suggestion, SweepSpec
from prunefleet.infra.controller.models.acquisition import log_expected_improvement, normals, possible
from prunefleet.infra.controller.models.kernels import KernelSpec
from prunefleet.infra.controller.models.surrogate import Surrogate, fit
from prunefleet.infra.controller.parameters import Parameter, ParameterSpace, identity

LEVELS = 64  # of a continuous parameter
FEWEST, MOST = 4, 10  # points before the first model: one more than half the parameters, within these bounds
SAMPLES = 128
BLUR = 1e-2  # in standard deviations of the metric
INTERVAL = 1.645  # standard deviations either side that hold 90 %


class ParameterAxis:
    """One free parameter: the values that may be tried this time, and the features [levels, columns] of each."""

    def __init__(self, leaf: Parameter, offset: float) -> None:
        self.leaf = leaf
        self.values = leaf.distribution.levels or tuple(
            leaf.distribution.quantile((i + offset) / LEVELS) for i in range(LEVELS)
        )
        self._words = () if leaf.distribution.numeric else tuple(identity(value) for value in self.values)
        self.features = np.array([self.encode(value) for value in self.values])

    def encode(self, value: object) -> list[float]:
        """The features of a value, each in [0, 1]: its place in the distribution, or one column per word."""
        if self.leaf.distribution.numeric:
            return [self.leaf.distribution.unit(value)]
        return [float(identity(value) == word) for word in self._words]

    def nearest(self, value: object) -> int:
        """The level most like a value."""
        return int(np.abs(self.features - self.encode(value)).sum(axis=1).argmin())


class Axes:
    """All free parameters of a sweep, in order."""

    def __init__(self, space: ParameterSpace, rng: np.random.Generator) -> None:
        self.each = [ParameterAxis(leaf, float(rng.random())) for leaf in space.free]
        self.grid_is_whole = all(leaf.distribution.levels is not None for leaf in space.free)

    @property
    def sizes(self) -> list[int]:
        """Levels per parameter."""
        return [len(axis.values) for axis in self.each]

    def features(self, points: Ints) -> Floats:
        """Features [n, columns] of points [n, parameters] of level numbers."""
        return np.concatenate([axis.features[column] for axis, column in zip(self.each, points.T, strict=True)], axis=1)

    def encode(self, params: Mapping[str, Any]) -> list[float]:
        """The features [columns] of a trial's parameters."""
        return [number for axis in self.each for number in axis.encode(params[axis.leaf.name])]

    def nearest(self, params: Mapping[str, Any]) -> tuple[int, ...]:
        """The point most like a trial's parameters."""
        return tuple(axis.nearest(params[axis.leaf.name]) for axis in self.each)

    def params(self, point: Sequence[int]) -> dict[str, Any]:
        """The parameters at a point."""
        return {axis.leaf.name: axis.values[level] for axis, level in zip(self.each, point, strict=True)}


def suggest(sweep: SweepSpec, trials: Sequence[StoredTrial], seed: int) -> Suggestion | Exhausted:
    """The next run of a sweep over any parameters; see `Controller.suggest`."""
    readable = [trial for trial in trials if sweep.space.point(trial.params) is not None]
    rng = np.random.default_rng(seed)
    axes = Axes(sweep.space, rng)
    grid = Grid(axes.sizes, {axes.nearest(trial.params) for trial in readable} if axes.grid_is_whole else ())
    if axes.grid_is_whole and grid.left <= 0:
        return Exhausted(f"all {grid.count} combinations have been tried")
    answered = [trial for trial in readable if trial.answered and trial.value is not None]
    first = min(max(FEWEST, 1 + len(axes.each) // 2), MOST)
    if len(readable) < first or len(answered) < 2:
        return _spread(sweep, axes, grid, len(readable), rng)
    search = GenericSearch(sweep, axes, readable, answered, seed)
    best = maximise(search.acquisition, grid, search.starts, rng)
    assert best is not None  # a grid with points left has a best one
    params = axes.params(best.point.tolist())
    return Suggestion(params, sweep.space.config(params), search.why(best))


def _spread(sweep: SweepSpec, axes: Axes, grid: Grid, place: int, rng: np.random.Generator) -> Suggestion:
    """The next point of the sweep's own Sobol sequence, or a random free point where that one is taken."""
    sobol = qmc.Sobol(len(axes.each), scramble=True, rng=sweep.seed(0))
    units = np.asarray([sobol.random(1)[0] for _ in range(place + 1)][-1])
    params = {
        axis.leaf.name: axis.leaf.distribution.quantile(float(unit))
        for axis, unit in zip(axes.each, units, strict=True)
    }
    if axes.grid_is_whole and axes.nearest(params) in grid.taken:
        free = maximise(lambda points: rng.random(len(points)), grid, grid.random(1, rng), rng)
        assert free is not None
        params = axes.params(free.point.tolist())
    return Suggestion(params, sweep.space.config(params), {"kind": "explore", "note": "a well-spread first point"})


class GenericSearch:
    """The model of the metric at one moment, and what it thinks of points."""

    def __init__(
        self, sweep: SweepSpec, axes: Axes, readable: Sequence[StoredTrial], answered: Sequence[StoredTrial], seed: int
    ) -> None:
        self._sign = 1.0 if sweep.maximise else -1.0
        self._axes, self._answered = axes, answered
        self._bad = _encoded(axes, [trial for trial in readable if trial.impossible])
        self._seen = _encoded(axes, answered)
        values = self._sign * np.array([trial.value for trial in answered], dtype=float)
        self._blur = BLUR * max(float(values.std()), 1e-12)
        model = fit(self._seen, values, KernelSpec(smooth=(tuple(range(self._seen.shape[1])),)))
        pending = _encoded(axes, [trial for trial in readable if trial.pending])
        self._model: Surrogate = model.with_pending(pending)
        self._normals = normals(SAMPLES, 1, seed)
        expected, _ = self._model.predict(np.concatenate([self._seen, pending]))
        self._best = float(expected.max())
        order = np.argsort(-values, kind="stable")[:8]
        self.starts: Ints = np.array([axes.nearest(answered[place].params) for place in order], dtype=np.int64)

    def acquisition(self, points: Ints) -> Floats:
        """The logarithm [n] of the expected improvement at points, times the chance that they give an answer."""
        if not len(points):
            return np.zeros(0)
        features = self._axes.features(points)
        mean, std = self._model.predict(features)
        gain = log_expected_improvement(mean + std * self._normals, self._best, self._blur)
        return gain + np.log(possible(features, self._seen, self._bad))

    def why(self, best: Best) -> dict[str, Any]:
        """What the model expects of a point with a 90 % interval, and why it is worth a run."""
        features = self._axes.features(best.point[None])
        mean, std = self._model.predict(features)
        ends = sorted(self._sign * (mean[0] + side * INTERVAL * std[0]) for side in (-1, 1))
        apart = np.abs(self._seen - features).mean(axis=1)
        place = int(apart.argmin())
        return {
            "kind": "exploit" if mean[0] > self._best else "explore",
            "value": {"expected": float(self._sign * mean[0]), "lo": float(ends[0]), "hi": float(ends[1])},
            "best_value": self._sign * self._best,
            "acquisition": {"name": "log expected improvement", "value": round(best.score, 4)},
            "nearest": {"trial": self._answered[place].name, "distance": round(float(apart[place]), 4)},
        }


def _encoded(axes: Axes, trials: Sequence[StoredTrial]) -> Floats:
    columns = sum(axis.features.shape[1] for axis in axes.each)
    return np.array([axes.encode(trial.params) for trial in trials], dtype=float).reshape(-1, columns)
