"""What a pruning sweep has learnt: the drop of the metric and the latency ratio of kept channels, apart.

Both are a simple law of the network plus a Gaussian process for what the law leaves over. Kept channels are a matrix
[n, groups] in the order of the profile's groups, with the marks of choices as further columns (`choices`); drops are
fractions, latencies are ratios to the dense model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import nnls

from prunefleet.infra.controller.models.kernels import Floats, KernelSpec
from prunefleet.infra.controller.models.surrogate import Surrogate, fit
from prunefleet.objective.profiles.profile import Curve, Profile

DROP_NOISE = 0.003  # expected repeatability of a metric, as a fraction
LATENCY_NOISE = 0.01  # expected repeatability of a latency ratio, relative
LATENCY_REST = 0.05  # expected size of what the product law leaves over, relative
BLOCKS = (1, 16, 32)  # channels that cost as much as one of them
FAR_APART = 4  # in networks of many groups only neighbours within this distance share a product
MANY_GROUPS = 20
RIDGE = 1e-2  # of a law's weights, where latencies are 1
FOLDS, UNTESTED = 4, 2.0  # parts of the mixed candidates that are foretold; by what to stretch where there are too few
MOST_FORETOLD = 500  # latencies that this is tried on
FEW_LATENCIES = 150  # so many cost little to fit anew with each
MOST_LATENCIES = 400  # that find the hyperparameters; as many as a plan measures
KNOTS = 8  # of a group's latency over its share: one more than lie between none and all
FEWEST_TO_DOUBT = 8  # trials before the profile's curves are doubted
DOUBT = 2.0  # by how much, in logarithms of likelihood, plain curves must be better


@dataclass(frozen=True)
class Band:
    """Predictions [n]: expected values and standard deviations, on the scale of the model that made them."""

    mean: Floats
    std: Floats


class Sensitivity:
    """The profile's curves: what pruning one group alone costs before fine-tuning, undone of its saturation."""

    def __init__(self, profile: Profile) -> None:
        curves = {curve.group: curve for curve in profile.curves}
        self.widths = np.array([group.width for group in profile.groups], dtype=float)
        self._laws = [_sensitivity(curves.get(g.name), g.width, profile.dense_metric) for g in profile.groups]

    def __call__(self, kept: Floats) -> Floats:
        """The cost of each group by itself [n, groups]; a sum over groups predicts the order of candidates."""
        return np.stack([np.asarray(law(column)) for law, column in zip(self._laws, kept.T, strict=False)], axis=1)


class Drop:
    """The metric's drop after fine-tuning, a process around a multiple of the summed sensitivity curves.

    Large drops are compressed (`_squeeze`): what matters is told apart, ruins need not be. `let_go` says that the
    curves are not the profile's.
    """

    def __init__(self, sensitivity: Sensitivity, kept: Floats, drops: Floats, let_go: bool = False) -> None:
        self._sensitivity, self.let_go = sensitivity, let_go
        # The dense network loses nothing, whoever has measured it.
        kept = np.concatenate([_marked(sensitivity.widths[None], kept.shape[1]), kept])
        drops = np.concatenate([[0.0], drops])
        self._bend = max(3 * float(np.median(np.abs(drops))), 0.01)
        squeezed = self._squeeze(drops)
        self._scale = max(float(np.sqrt(np.mean(squeezed**2))), DROP_NOISE)
        self._unit = max(float(np.sqrt(np.mean(sensitivity(kept).sum(axis=1) ** 2))), 1e-6)
        groups, marks = len(sensitivity.widths), kept.shape[1] - len(sensitivity.widths)
        costs, marked = tuple(range(groups, 2 * groups)), tuple(range(2 * groups, 2 * groups + marks))
        spec = KernelSpec(
            smooth=((*range(groups), *marked), (*costs, *marked)),
            alike=True,
            linear=(*costs, *marked),
            trend=2 * groups + marks,
            scale=self._scale,
            noise=DROP_NOISE,
            centred=False,
        )
        self._process = fit(self._features(kept), squeezed, spec, 1 + _rarely(len(drops) - 1))

    def plausibility(self) -> float:
        """The sum of the logarithms of the observations' densities, each given the others, in units of `DROP_NOISE`."""
        found = self._process.left_out()
        return float(found.sum() - len(found) * np.log(self._scale / DROP_NOISE))

    @property
    def noise(self) -> float:
        """The standard deviation of a trial's squeezed drop around what is predicted."""
        return self._process.noise

    def with_pending(self, kept: Floats) -> Drop:
        """Return the model with pending `kept` [n, groups] imputed: observed as it expects them."""
        return self._with(self._process.with_pending(self._features(kept)))

    def predict(self, kept: Floats) -> Band:
        """The squeezed drop of `kept` [n, groups]; `sample` and `drop` speak of the drop itself."""
        return Band(*self._process.predict(self._features(kept)))

    def sample(self, band: Band, normals: Floats) -> Floats:
        """Drops [samples, n] for standard normal numbers [samples, 1]."""
        return self._unsqueeze(band.mean + band.std * normals)

    def _features(self, kept: Floats) -> Floats:
        costs, groups = self._sensitivity(kept) / self._unit, len(self._sensitivity.widths)
        gone, total = 1 - kept[:, :groups] / self._sensitivity.widths, costs.sum(axis=1, keepdims=True)
        return np.concatenate([gone, costs, kept[:, groups:], total], axis=1)

    def _squeeze(self, drops: Floats) -> Floats:
        beyond = np.maximum(drops / self._bend, 1.0)
        return np.minimum(drops, self._bend) + self._bend * np.log(beyond)

    def _unsqueeze(self, squeezed: Floats) -> Floats:
        beyond = np.maximum(squeezed / self._bend - 1.0, 0.0)
        return np.minimum(squeezed, self._bend) + self._bend * np.expm1(np.minimum(beyond, 5.0))

    def _with(self, process: Surrogate) -> Drop:
        twin = object.__new__(Drop)
        twin.__dict__.update(self.__dict__, _process=process)
        return twin


def drop_model(profile: Profile, kept: Floats, drops: Floats) -> Drop:
    """The drop around the profile's curves, or around plain ones where the trials speak against the profile's.

    Curves taken from one group at a time, before fine-tuning, may mislead. Both models foretell each trial from the
    others; the profile's curves are let go once the plain model is `DOUBT` better at it, and taken back likewise.
    """
    informed = Drop(Sensitivity(profile), kept, drops)
    if len(drops) < FEWEST_TO_DOUBT or not profile.curves:
        return informed
    plain = Drop(Sensitivity(replace(profile, curves=())), kept, drops, let_go=True)
    return plain if plain.plausibility() > informed.plausibility() + DOUBT else informed


class LatencyModel:
    """The latency ratio: a sum of products of kept shares (a layer costs its inputs times its outputs), and a process.

    Processors compute channels in blocks as wide as their vectors, so the law knows the shares in whole blocks too. The
    products' weights are at least nothing, so fewer blocks never cost more in the law; the process works on the
    logarithm of what is left over.
    """

    def __init__(self, profile: Profile, kept: Floats, ratios: Floats) -> None:
        self._widths = np.array([group.width for group in profile.groups], dtype=float)
        known, measured = _untrained(profile)
        kept = np.concatenate([_marked(known, kept.shape[1]), kept])
        ratios = np.concatenate([measured, ratios])
        columns = tuple(range(kept.shape[1]))
        # The law is that of the profile's own choices; a mark moves all that it costs, and the process the rest.
        unmarked = ~kept[:, len(self._widths) :].any(axis=1)
        self._weights = _product_law(self._terms(kept[unmarked]), ratios[unmarked])
        points = self._features(kept)
        curved = points.shape[1] - len(self._widths) * (KNOTS - 1)
        spec = KernelSpec(
            smooth=(columns,),
            linear=tuple(range(len(self._widths), curved)),
            additive=tuple(range(curved, points.shape[1])),
            scale=LATENCY_REST,
            noise=LATENCY_NOISE,
            centred=False,
        )
        left = np.log(ratios) - self._law(kept)
        self._process = fit(points, left, spec, _seldom(len(known), len(kept)), MOST_LATENCIES)
        self._stretch = self._too_sure(kept, ratios)

    def with_pending(self, kept: Floats) -> LatencyModel:
        """Return the model with pending `kept` [n, groups] imputed: observed as it expects them."""
        twin = object.__new__(LatencyModel)
        twin.__dict__.update(self.__dict__, _process=self._process.with_pending(self._features(kept)))
        return twin

    def predict(self, kept: Floats) -> Band:
        """The logarithm of the latency ratio of `kept` [n, groups]."""
        mean, std = self._process.predict(self._features(kept))
        return Band(self._law(kept) + mean, std * self._stretch)

    def sample(self, band: Band, normals: Floats) -> Floats:
        """Latency ratios [samples, n] for standard normal numbers [samples, 1]."""
        return np.asarray(np.exp(band.mean + band.std * normals))

    def _too_sure(self, kept: Floats, ratios: Floats) -> float:
        """By what to stretch the standard deviations: the process does not know that the law's weights are uncertain.

        Law and process foretell mixed candidates that they were not fitted to; 1 where they err as they say, or less.
        """
        # Of thousands an even share is enough to tell.
        chosen = np.linspace(0, len(kept) - 1, min(len(kept), MOST_FORETOLD)).astype(int)
        kept, ratios = kept[chosen], ratios[chosen]
        groups = len(self._widths)
        mixed = np.flatnonzero((kept[:, :groups] < self._widths).sum(axis=1) > 1)
        if len(mixed) < FOLDS:
            return UNTESTED
        terms, points, observed = self._terms(kept), self._features(kept), np.log(ratios)
        unmarked = np.flatnonzero(~kept[:, groups:].any(axis=1))
        errors = []
        for fold in range(FOLDS if len(kept) <= FEW_LATENCIES else 1):
            out = mixed[fold::FOLDS]
            rest = np.setdiff1d(np.arange(len(kept)), out)
            lawful = np.intersect1d(rest, unmarked)
            left = observed - np.log(np.maximum(terms @ _product_law(terms[lawful], ratios[lawful]), 1e-3))
            mean, std = self._process.conditioned_on(points[rest], left[rest]).predict(points[out])
            errors.append((left[out] - mean) / np.hypot(std, self._process.noise))
        return max(1.0, float(np.sqrt(np.mean(np.concatenate(errors) ** 2))))

    def _law(self, kept: Floats) -> Floats:
        return np.asarray(np.log(np.maximum(self._terms(kept) @ self._weights, 1e-3)))

    def _features(self, kept: Floats) -> Floats:
        """Shares, marks, which groups end within a block (most devices have slower code for such an end), and curves.

        A curve is a group's share as a mix of the two `KNOTS` next to it: what is linear in these bends at the knots.
        """
        groups = len(self._widths)
        shares, within = kept[:, :groups] / self._widths, (kept[:, :groups] % min(BLOCKS[1:]) != 0).astype(float)
        knots = np.arange(1, KNOTS)
        curves = np.maximum(1 - np.abs(shares[:, :, None] * KNOTS - knots), 0).reshape(len(kept), groups * len(knots))
        return np.concatenate([shares, kept[:, groups:], within, curves], axis=1)

    def _terms(self, kept: Floats) -> Floats:
        kept = kept[:, : len(self._widths)]
        one, two = _pairs(kept.shape[1])
        terms = [np.ones((len(kept), 1))]
        for block in BLOCKS:
            shares = np.ceil(kept / block) / np.ceil(self._widths / block) if block > 1 else kept / self._widths
            terms += [shares, shares[:, one] * shares[:, two]]
        return np.concatenate(terms, axis=1)


def _marked(kept: Floats, columns: int) -> Floats:
    """Kept channels [n, groups] with no mark in the further ones of so many columns."""
    return np.concatenate([kept, np.zeros((len(kept), columns - kept.shape[1]))], axis=1)


def _pairs(groups: int) -> tuple[Sequence[int], Sequence[int]]:
    reach = groups if groups <= MANY_GROUPS else FAR_APART
    pairs = [(i, j) for i in range(groups) for j in range(i, min(i + reach + 1, groups))]
    return [i for i, _ in pairs], [j for _, j in pairs]


def _product_law(terms: Floats, ratios: Floats) -> Floats:
    """Weights of at least 0 with the least relative error; a slight ridge shares a cost among terms that explain it."""
    relative = terms / ratios[:, None]
    # Solved for the square root of the normal equations: as many rows as terms, however many latencies there are.
    root = cholesky(relative.T @ relative + RIDGE**2 * np.eye(terms.shape[1]), lower=True, check_finite=False)
    target = solve_triangular(root, relative.sum(axis=0), lower=True, check_finite=False)
    weights, _ = nnls(np.asfortranarray(root.T), target, maxiter=20 * terms.shape[1])
    return np.asarray(weights)


def _untrained(profile: Profile) -> tuple[Floats, Floats]:
    """Every latency that the profile holds: dense, single groups, and whole candidates."""
    names = [group.name for group in profile.groups]
    dense = {group.name: group.width for group in profile.groups}
    points = [({}, 1.0), *profile.latencies]
    points += [({c.group: k}, ratio) for c in profile.curves for k, ratio in zip(c.kept, c.latency_ratio, strict=True)]
    kept = [[{**dense, **dict(point)}[name] for name in names] for point, _ in points]
    return np.array(kept, dtype=float), np.array([ratio for _, ratio in points], dtype=float)


def _sensitivity(curve: Curve | None, width: int, dense: float) -> PchipInterpolator:
    """A rising, unsaturated cost over kept channels; a group without a curve costs the square of its pruned share."""
    if curve is None:
        kept = np.linspace(0, width, 9)
        return PchipInterpolator(kept, 0.1 * dense * (1 - kept / width) ** 2)
    lost = {kept: max(dense - metric, 0.0) for kept, metric in zip(curve.kept, curve.metric, strict=True)}
    points = sorted({**lost, width: 0.0}.items(), reverse=True)
    rising = np.maximum.accumulate([loss for _, loss in points])
    unsaturated = -dense * np.log(1 - np.minimum(rising / dense, 0.95))
    kept = np.array([count for count, _ in points], dtype=float)
    if len(points) == 1:
        return _sensitivity(None, width, dense)
    # Below the last point measured the cost goes on as steeply as it came.
    slope = (unsaturated[-1] - unsaturated[-2]) / (kept[-2] - kept[-1])
    ends, costs = np.append(kept, 0.0), np.append(unsaturated, unsaturated[-1] + slope * kept[-1])
    return PchipInterpolator(ends[::-1], costs[::-1])


def _rarely(count: int) -> int:
    """How many of so many drops find the hyperparameters: each one at first, then every second, fourth, eighth."""
    every = 1 if count < 12 else 2 if count < 24 else 4 if count < 60 else 8
    return count // every * every


def _seldom(known: int, count: int) -> int:
    """How many of so many latencies, `known` before the first trial, find the hyperparameters.

    All while they are few and law and process still find their parts; then the known ones and a power of two.
    """
    more = count - known
    return count if count <= FEW_LATENCIES or not more else known + (1 << (more.bit_length() - 1))
