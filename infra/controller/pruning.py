"""Bayesian search over pruning ratios: the profile's warm points first, then expected improvement on the channel grid.

A candidate is the channels that each group keeps. The two models of `models` predict drop and latency ratio; samples of
both go through `objective.score.values`, so the goal stands on top of the models and may change without a new trial.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import ndtri

from infra.controller.acquisition import log_expected_improvement, normals, possible
from infra.controller.base import Exhausted, StoredTrial, Suggestion, SweepSpec
from infra.controller.candidates import Best, Floats, Grid, Ints, maximise
from infra.controller.channels import Answers, ChannelGrid, Facts, Kept, read
from infra.controller.models import Band, Drop, Latency, drop_model
from objective.goal import Goal
from objective.profile import Profile
from objective.score import values as score_values

SAMPLES = 128
BLUR = 1e-3  # scores lie between -1 and 1; differences below this do not matter
INTERVAL = 1.645  # standard deviations either side that hold 90 %
STARTS = 12  # how many of the best trials the search starts from
AGAIN = 4  # how many of the best trials may be worth another run
MOST_RUNS = 3  # of one candidate: near a limit there would be no end to it
SHIFTS = 32  # outcomes of another run that are looked at
SEED = "seed"  # of the recipe: a candidate's second run prunes and trains with another one


def suggest(
    sweep: SweepSpec, profile: Profile, goal: Goal, trials: Sequence[StoredTrial], seed: int
) -> Suggestion | Exhausted:
    """The next candidate of a pruning sweep; see `Controller.suggest`."""
    space = ChannelGrid(sweep, profile)
    facts = read(space, trials)
    rng = np.random.default_rng(seed)
    grid = Grid(space.sizes, (point for kept in facts.tried if (point := space.exact(kept)) is not None))
    if grid.left <= 0:
        return Exhausted(f"all {grid.count} candidates of the channel grid have been tried")
    for place, point in enumerate(space.warm(profile)):
        if point not in grid.taken:
            why = {"kind": "warm", "place": place + 1, "of": len(profile.warm)}
            return _answer(sweep, space, facts, point, rng, why)
    return _search(sweep, space, Search(space, profile, goal, facts, seed), grid, rng)


@dataclass(frozen=True)
class Recommendation:
    """The trial that the models think best of, going by what they expect of it and not by its own luck.

    `why` has what they expect, with 90 % intervals, as a suggestion's has; `score` is the mean of the score expected.
    """

    trial: str
    kept: Mapping[str, int]
    score: float
    why: Mapping[str, Any]


def recommend(
    sweep: SweepSpec, profile: Profile, goal: Goal, trials: Sequence[StoredTrial], seed: int
) -> Recommendation | None:
    """The best of the trials whose metric and latency are known, by the posterior mean of the score; None without any.

    A trial that measured a lucky metric is held against its neighbours, so it need not be the best one observed.
    """
    space = ChannelGrid(sweep, profile)
    ended = [trial for trial in trials if trial.answered and trial.drop is not None]
    facts = read(space, [trial for trial in trials if not trial.pending])
    if not facts.drop_at:
        return None
    search = Search(space, profile, goal, facts, seed)
    place, score = search.favourite()
    kept = facts.known[place]
    names = [trial.name for trial in ended if space.tried(trial) == kept]
    counts = dict(zip((axis.spec.name for axis in space.axes), map(int, kept), strict=True))
    return Recommendation(names[0], counts, score, search.expected(np.array([kept], dtype=float)))


def _search(
    sweep: SweepSpec, space: ChannelGrid, search: Search, grid: Grid, rng: np.random.Generator
) -> Suggestion | Exhausted:
    best = maximise(search.acquisition, grid, search.starts(), rng)
    if best is None:
        return Exhausted("no candidate of the channel grid is left")
    again = search.again()
    if again is not None and again.score > best.score:
        return _replicate(sweep, space, search, again, rng)
    return _answer(sweep, space, search.facts, tuple(best.point.tolist()), rng, search.why(best))


def _replicate(
    sweep: SweepSpec, space: ChannelGrid, search: Search, again: Best, rng: np.random.Generator
) -> Suggestion:
    """Another run of a candidate that was tried, with another seed."""
    why = {**search.why(again), "kind": "replicate", "acquisition": _acquisition("log expected gain", again.score)}
    found = _answer(sweep, space, search.facts, tuple(again.point.tolist()), rng, why)
    before = search.facts.tried.count(tuple(space.counts(again.point.tolist()).values()))
    recipe = dict(found.config.get("recipe", {}))
    recipe[SEED] = int(recipe.get(SEED, 0)) + before
    return replace(found, config={**found.config, "recipe": recipe}, repeat=before)


class Search:
    """The models of a sweep at one moment, and what they think of points of the grid."""

    def __init__(self, space: ChannelGrid, profile: Profile, goal: Goal, facts: Facts, seed: int) -> None:
        self.space, self.profile, self.facts = space, profile, facts
        self.goal = _askable(goal, facts.baseline_ms)
        pending = space.matrix(facts.pending)
        text = json.dumps(profile.to_json(), sort_keys=True)
        self._drop = _drop(text, facts.drop_at).believing(pending)
        self._latency = _latency(text, facts.latency_at).believing(pending)
        self._normals = normals(SAMPLES, 2, seed)
        self._had = space.matrix([kept for kept, _ in facts.latency_at]) / space.widths
        self._bad = space.matrix(facts.impossible) / space.widths
        # The incumbent goes by what the models expect, not by the luckiest observation.
        self._reached = self.values(space.matrix(facts.known)).mean(axis=0)
        self._best = float(self._reached.max(initial=-1.0))

    def values(self, kept: Floats) -> Floats:
        """Sampled scores [samples, n] of kept channels [n, groups]."""
        drops = self._drop.sample(self._drop.predict(kept), self._normals[:, :1])
        return self._scores(drops, self._latency.sample(self._latency.predict(kept), self._normals[:, 1:]))

    def _scores(self, drops: Floats, ratios: Floats) -> Floats:
        metric = self.profile.dense_metric - drops
        return np.asarray(score_values(metric, drops, ratios, self.goal, self.facts.baseline_ms))

    def acquisition(self, points: Ints) -> Floats:
        """The logarithm [n] of the expected improvement at points, times the chance that they can be had."""
        if not len(points):
            return np.zeros(0)
        kept = self.space.kept(points)
        return log_expected_improvement(self.values(kept), self._best, BLUR) + np.log(self._possible(kept))

    def again(self) -> Best | None:
        """The tried candidate that is most worth another run, with the logarithm of what the best score gains by it.

        A further observation moves what is expected of the candidate; the gain is the mean of the best score
        after it, less the best score now (the knowledge gradient of Frazier et al. 2009, without a point's neighbours).
        """
        order = np.argsort(-self._reached, kind="stable")
        places = [place for place in order[: 2 * AGAIN] if self._worth_another(self.facts.known[place])][:AGAIN]
        if not places:
            return None
        kept = self.space.matrix([self.facts.known[place] for place in places])
        band = self._drop.predict(kept)
        shift = band.std**2 / np.sqrt(band.std**2 + self._drop.noise**2)
        rest = np.sqrt(np.maximum(band.std**2 - shift**2, 0.0))
        ratios = self._latency.sample(self._latency.predict(kept), self._normals[:, 1:])
        means = [
            self._scores(self._drop.sample(Band(band.mean + shift * z, rest), self._normals[:, :1]), ratios).mean(
                axis=0
            )
            for z in ndtri((np.arange(SHIFTS) + 0.5) / SHIFTS)
        ]
        after = np.array(means)
        gains = [self._gain(after[:, column], place) for column, place in enumerate(places)]
        top = int(np.argmax(gains))
        point = self.space.exact(self.facts.known[places[top]])
        return Best(np.array(point, dtype=np.int64), float(np.log(max(gains[top], 1e-300))))

    def _worth_another(self, kept: Kept) -> bool:
        """Whether a candidate may run again: it has an answer and waits for none, and has not had its runs."""
        waits, runs = kept in self.facts.pending, self.facts.tried.count(kept)
        return not waits and runs < MOST_RUNS and self.space.exact(kept) is not None

    def _gain(self, after: Floats, place: int) -> float:
        """By how much the best score rises on average if what is expected of one candidate moves `after` [shifts]."""
        known = self.facts.known
        apart = [score for kept, score in zip(known, self._reached, strict=True) if kept != known[place]]
        others = float(max(apart, default=-1.0))
        return float(np.maximum(after, others).mean() - max(float(after.mean()), others))

    def starts(self) -> Ints:
        """The grid's points nearest to the best trials [m, groups], and the warm points."""
        order = np.argsort(-self._reached, kind="stable")[:STARTS]
        tried = [self.space.nearest(self.facts.known[place]) for place in order]
        return np.array([*tried, *self.space.warm(self.profile)], dtype=np.int64).reshape(-1, len(self.space.axes))

    def favourite(self) -> tuple[int, float]:
        """Which of `facts.known` the models expect the best score of, and that score."""
        place = int(self._reached.argmax())
        return place, float(self._reached[place])

    def expected(self, kept: Floats) -> dict[str, Any]:
        """What the models expect of kept channels [1, groups], with 90 % intervals."""
        ends = np.array([[0.0], [-INTERVAL], [INTERVAL]])
        drop = self._drop.sample(self._drop.predict(kept), ends)[:, 0]
        ratio = self._latency.sample(self._latency.predict(kept), ends)[:, 0]
        score = round(float(self.values(kept).mean()), 5)
        return {"drop": _interval(drop), "latency_ratio": _interval(ratio), "score": score}

    def why(self, best: Best) -> dict[str, Any]:
        """What the models expect of a point, and why it is worth a trial."""
        expected = self.expected(self.space.kept(best.point[None]))
        return {
            "kind": "exploit" if expected["score"] > round(self._best, 5) else "explore",
            **expected,
            "best_score": round(self._best, 5),
            "acquisition": _acquisition("log expected improvement", best.score),
            **({"curves": "let go"} if self._drop.let_go else {}),
        }

    def _possible(self, kept: Floats) -> Floats:
        return possible(kept / self.space.widths, self._had, self._bad)


def _askable(goal: Goal, baseline_ms: float | None) -> Goal:
    """The goal; while no trial has told the dense model's milliseconds, one without a limit in them."""
    if goal.max_latency_ms is None or baseline_ms is not None:
        return goal
    return replace(goal, max_latency_ms=None, max_latency_ratio=goal.max_latency_ratio or 1.0)


# A fit depends on the profile and the answers alone, so suggestions made in a row share it.
@lru_cache(maxsize=4)
def _profile(text: str) -> Profile:
    return Profile.from_json(json.loads(text))


@lru_cache(maxsize=4)
def _drop(profile: str, answers: Answers) -> Drop:
    known = _profile(profile)
    return drop_model(known, _points(answers, len(known.groups)), _numbers(answers))


@lru_cache(maxsize=4)
def _latency(profile: str, answers: Answers) -> Latency:
    known = _profile(profile)
    return Latency(known, _points(answers, len(known.groups)), _numbers(answers))


def _points(answers: Answers, groups: int) -> Floats:
    return np.array([kept for kept, _ in answers], dtype=float).reshape(-1, groups)


def _numbers(answers: Answers) -> Floats:
    return np.array([number for _, number in answers], dtype=float)


def _answer(
    sweep: SweepSpec,
    space: ChannelGrid,
    facts: Facts,
    point: tuple[int, ...],
    rng: np.random.Generator,
    why: Mapping[str, Any],
) -> Suggestion:
    params = space.params(point, rng)
    kept = space.counts(point)
    return Suggestion(
        params, sweep.space.config(params), {**why, "kept": kept, "nearest": _nearest(space, facts, kept)}
    )


def _nearest(space: ChannelGrid, facts: Facts, kept: Mapping[str, int]) -> dict[str, Any] | None:
    """The tried trial whose kept shares differ least, and in how many groups it differs."""
    if not facts.tried:
        return None
    here = np.array(list(kept.values()), dtype=float)
    apart = np.abs(space.matrix(facts.tried) - here) / space.widths
    place = int(apart.sum(axis=1).argmin())
    differs = int((apart[place] > 0).sum())
    return {"trial": facts.names[place], "groups": differs, "distance": round(float(apart[place].mean()), 4)}


def _acquisition(name: str, value: float) -> dict[str, Any]:
    return {"name": name, "value": round(value, 4)}


def _interval(ends: Floats) -> dict[str, float]:
    return {name: round(float(end), 5) for name, end in zip(("expected", "lo", "hi"), ends, strict=True)}
