"""Models of several kinds fitted to the table of real trials, so that searches can be judged on any candidate.

A search of ours models with Gaussian processes; a surrogate of that kind alone would flatter it. So several families
are fitted, cross-validated by candidate, and searches are judged on the two best ones of different kinds.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from prunefleet.objective.errors import BadInput
from prunefleet.objective.profiles.profile import Profile
from prunefleet.objective.profiles.space import GroupSpec, Space

from studies.table.latency import as_measured, repeatability
from studies.table.passes import AGAIN, HEAD, LATENCY, PROFILE, TRIAL, joined
from studies.table.report import drops, seed_sd
from studies.table.study import Table

Floats = NDArray[np.float64]
VALIDATION, HOLDOUT, RATIO = TARGETS = ("validation", "holdout", "latency")
DIRECTION = {VALIDATION: -1, HOLDOUT: -1, RATIO: 1}
"""More channels lose less and take longer."""
FOLDS = 8
TREES = 200
SEED = 20240607
VERSION = 2
"""Of the models: games that were played on others are not gone on with."""


BLOCKS = (16, 32)
"""Channels that a processor computes together: latencies are fitted to shares in whole blocks too."""


@dataclass(frozen=True)
class Sample:
    """What one target is fitted to: kept shares [n, columns], values [n], and which candidate each row is of [n]."""

    shares: Floats
    values: Floats
    candidates: NDArray[np.int64]


@dataclass(frozen=True)
class Facts:
    """What a table tells: a sample by target, drops as fractions and latency as the logarithm of its ratio.

    `noise` is by target the standard deviation of one trial, or of one measurement, in the target's unit.
    """

    space: Space
    profile: Profile
    samples: Mapping[str, Sample]
    noise: Mapping[str, float]
    counts: Mapping[str, int]
    digest: str

    def shares(self, kept: Sequence[Sequence[int]] | NDArray[Any], target: str) -> Floats:
        """Kept channels [n, groups] as that target's models know them."""
        return _shares(self.space, np.asarray(kept), BLOCKS if target == RATIO else ())


def facts_of(table: Table) -> Facts:
    """Read a table; raises `BadInput` in one line where something is missing that nothing else can stand for."""
    heads, rows, timed = table.rows(HEAD), joined(table), table.rows(LATENCY)
    if not heads or len({row["name"] for row in rows}) < FOLDS:
        raise BadInput("trials", len(rows), f"train {FOLDS} candidates or more first: `-k trained`")
    lacking = len({row["name"] for row in rows} - {row["name"] for row in timed})
    if lacking:
        raise BadInput("latencies", f"none of {lacking} trained candidates", "measure them first: `-k measured`")
    head = heads[0]
    space = Space(tuple(GroupSpec(each["name"], each["width"], each["step"]) for each in head["groups"]))
    samples = {split: _sample(space, rows, drops(rows, head["dense"], split)) for split in (VALIDATION, HOLDOUT)}
    samples[RATIO] = _sample(space, timed, np.log([row["ratio"] for row in timed]), BLOCKS)
    noise = {split: seed_sd(rows, split)[0] for split in (VALIDATION, HOLDOUT)} | {RATIO: repeatability(timed)}
    unknown = [target for target in TARGETS if not np.isfinite(noise[target])]
    if unknown:
        raise BadInput(f"noise of {unknown[0]}", None, "go on with the table: nothing in it was done twice yet")
    counts = {
        "trials": len(rows),
        "diverged": sum("failed" in row for row in table.rows(TRIAL)),
        "candidates": len({row["name"] for row in rows}),
        "of": len(head["candidates"]),
        "repeated": seed_sd(rows, VALIDATION)[1],
        "latencies": len(timed),
        "twice": sum(AGAIN in row for row in timed),
    }
    profile = as_measured(Profile.from_json(table.rows(PROFILE)[0]["profile"]), timed)
    return Facts(space, profile, samples, noise, counts, _digest(samples, noise, profile))


def _sample(space: Space, rows: Sequence[Mapping[str, Any]], values: Floats, blocks: Sequence[int] = ()) -> Sample:
    kept = np.array([[row["kept"][spec.name] for spec in space.groups] for row in rows])
    # By channels, not by name: a group that is pruned alone may be one of the candidates too.
    _, candidates = np.unique(kept, axis=0, return_inverse=True)
    return Sample(_shares(space, kept, blocks), np.asarray(values), candidates.ravel())


def _shares(space: Space, kept: NDArray[Any], blocks: Sequence[int]) -> Floats:
    """Kept channels [n, groups] as shares of the widths, and of their whole blocks [n, groups * (1 + blocks)]."""
    widths = np.array([spec.width for spec in space.groups], dtype=np.float64)
    return np.concatenate([kept / widths, *(np.ceil(kept / each) / np.ceil(widths / each) for each in blocks)], axis=1)


def _digest(samples: Mapping[str, Sample], noise: Mapping[str, float], profile: Profile) -> str:
    told: list[Any] = [VERSION, dict(noise), profile.to_json()]
    told += [[name, each.shares.tolist(), each.values.tolist()] for name, each in sorted(samples.items())]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Family:
    """A family of models: its kind, and how one is made for a direction in which all groups act, and their number."""

    kind: str
    make: Callable[[int, int], Any]


def _trees(direction: int, groups: int) -> Any:
    rules = {"min_samples_leaf": 2, "max_features": 0.7, "monotonic_cst": [direction] * groups}
    return ExtraTreesRegressor(TREES, random_state=SEED, **rules)


def _boosting(direction: int, groups: int) -> Any:
    rules = {"min_samples_leaf": 4, "max_leaf_nodes": 6, "monotonic_cst": [direction] * groups}
    return HistGradientBoostingRegressor(
        learning_rate=0.06, max_iter=250, l2_regularization=1.0, early_stopping=False, random_state=SEED, **rules
    )


def _quadratic(direction: int, groups: int) -> Any:
    features = PolynomialFeatures(2, include_bias=False)
    return make_pipeline(features, StandardScaler(), RidgeCV(np.logspace(-3, 4, 22)))


def _process(direction: int, groups: int) -> Any:
    kernel = ConstantKernel(1.0, (1e-2, 1e3)) * Matern([1.0] * groups, (0.1, 50.0), nu=2.5)
    noise = WhiteKernel(0.1, (1e-5, 1.0))
    return GaussianProcessRegressor(kernel + noise, normalize_y=True, random_state=SEED)


FAMILIES = {
    "extra trees": Family("trees", _trees),
    "gradient boosting": Family("trees", _boosting),
    "quadratic ridge": Family("polynomial", _quadratic),
    "Gaussian process": Family("Gaussian process", _process),
}


def _fit(family: str, target: str, sample: Sample) -> Any:
    model = FAMILIES[family].make(DIRECTION[target], sample.shares.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a length scale at its bound says that a group does not matter
        return model.fit(sample.shares, sample.values)


def folds(sample: Sample) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to fit and rows to hold out, by fold; all rows of a candidate are on one side."""
    count = min(FOLDS, len(set(sample.candidates.tolist())))
    cut = GroupKFold(count, shuffle=True, random_state=SEED)
    return list(cut.split(sample.shares, sample.values, sample.candidates))


def cross_validate(sample: Sample, family: str, target: str) -> dict[str, float]:
    """What a family makes of candidates that it was not fitted to: R2, RMSE, and Spearman's rank correlation."""
    found = np.empty(len(sample.values))
    for fit, held in folds(sample):
        part = replace(sample, shares=sample.shares[fit], values=sample.values[fit], candidates=sample.candidates[fit])
        found[held] = _fit(family, target, part).predict(sample.shares[held])
    missed, spread = np.mean((found - sample.values) ** 2), np.var(sample.values)
    constant = spread == 0 or np.ptp(found) == 0
    return {
        "r2": float(1 - missed / spread) if spread else 0.0,
        "rmse": float(np.sqrt(missed)),
        "spearman": 0.0 if constant else float(spearmanr(found, sample.values).statistic),
    }


Accuracy = dict[str, dict[str, dict[str, float]]]
"""By family and target."""


def accuracy_of(facts: Facts) -> Accuracy:
    """The cross-validated accuracy of all families on all targets."""
    return {
        family: {target: cross_validate(facts.samples[target], family, target) for target in TARGETS}
        for family in FAMILIES
    }


def judged_on(accuracy: Accuracy) -> tuple[str, str]:
    """The two best families of different kinds, by the variance of drop and latency that they leave unexplained."""

    def unexplained(family: str) -> float:
        return sum(1 - accuracy[family][target]["r2"] for target in (VALIDATION, RATIO))

    first, *others = sorted(accuracy, key=unexplained)
    return first, next(family for family in others if FAMILIES[family].kind != FAMILIES[first].kind)


class Surrogate:
    """One family fitted to all of a table: what any candidate would come to, without noise."""

    def __init__(self, facts: Facts, family: str) -> None:
        self.facts, self.family = facts, family
        self._models = {target: _fit(family, target, facts.samples[target]) for target in TARGETS}

    def __call__(self, kept: Sequence[Sequence[int]] | NDArray[Any]) -> Floats:
        """Kept channels [n, groups] → drop on validation, drop on holdout, latency ratio [n, 3]."""
        found = np.column_stack([self._models[each].predict(self.facts.shares(kept, each)) for each in TARGETS])
        found[:, 2] = np.exp(found[:, 2])
        return found


_FITTED: dict[tuple[str, str], Surrogate] = {}


def fitted(facts: Facts, family: str) -> Surrogate:
    """The surrogate of a family; fitted once a process."""
    key = facts.digest, family
    if key not in _FITTED:
        _FITTED[key] = Surrogate(facts, family)
    return _FITTED[key]
