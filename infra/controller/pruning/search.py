"""What the models of a pruning sweep think of candidates: what a trial of each is worth, and which trial is the best.

Samples of drop and of latency ratios, one for each device, go through `objective.score`, so the goal stands on top of
the models and may change without a new trial.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from scipy.special import ndtri

from prunefleet.infra.controller.candidates import Best, Floats, Ints
from prunefleet.infra.controller.models.accuracy import Band, Drop, drop_model
from prunefleet.infra.controller.models.acquisition import (
    log_expected_area,
    log_expected_improvement,
    normals,
    possible,
)
from prunefleet.infra.controller.models.latencies import Latencies, slowest
from prunefleet.infra.controller.pruning.channels import Answers, ChannelGrid, Facts, Kept
from prunefleet.objective.goals import pareto
from prunefleet.objective.goals.goal import Goal, Kind
from prunefleet.objective.goals.score import gains, values_on_all
from prunefleet.objective.profiles.profile import Profile

SAMPLES = 128
BLUR = 1e-3  # scores lie between -1 and 1; differences below this do not matter
INTERVAL = 1.645  # standard deviations either side that hold 90 %
STARTS = 12  # how many of the best trials the search starts from
AGAIN = 4  # how many of the best trials may be worth another run
MOST_RUNS = 3  # of one candidate: near a limit there would be no end to it
SHIFTS = 32  # outcomes of another run that are looked at


class PruningSearch:
    """The models of a sweep at one moment, and what they think of points of the grid."""

    def __init__(self, space: ChannelGrid, profile: Profile, goal: Goal, facts: Facts, seed: int) -> None:
        self.space, self.profile, self.facts = space, profile, facts
        self._dense_ms = [device.baseline_ms for device in facts.devices]
        self.goal = _askable(goal, self._dense_ms)
        pending = space.matrix(facts.pending)
        text = json.dumps(profile.to_json(), sort_keys=True)
        self._drop = _drop(text, facts.drop_at, len(space.widths)).with_pending(pending)
        told = tuple(_timed(device.latency_at, space.timed) for device in facts.devices)
        self._latencies = _latencies(text, told, space.timed).with_pending(self._timed(pending))
        self._normals = normals(SAMPLES, 1 + len(space.devices), seed)
        self._had = space.matrix(facts.had) / space.widths
        self._bad = space.matrix(facts.impossible) / space.widths
        # The incumbent goes by what the models expect, not by the luckiest observation.
        self._reached = self.values(space.matrix(facts.known)).mean(axis=0)
        self._best = float(self._reached.max(initial=-1.0))

    @cached_property
    def _front(self) -> Floats:
        """The gains [m, 2] that are expected of all trials, pending ones too; `pareto` goes by these."""
        return np.stack(gains(*self._middle(self.space.matrix(self.facts.known))), axis=1)

    def values(self, kept: Floats) -> Floats:
        """Sampled scores [samples, n] of kept channels [n, groups]."""
        return self._scores(*self._samples(kept))

    def _timed(self, kept: Floats) -> Floats:
        return kept[:, : self.space.timed]

    def _samples(self, kept: Floats) -> tuple[Floats, Floats]:
        """Drops [samples, n], and latency ratios [devices, samples, n]."""
        drops = self._drop.sample(self._drop.predict(kept), self._normals[:, :1])
        return drops, self._latencies.sample(self._timed(kept), self._normals[:, 1:])

    def _middle(self, kept: Floats) -> tuple[Floats, Floats]:
        """The drop [n] and the slowest device's latency ratio [n] that are expected."""
        middle = np.zeros((1, 1))
        drops = self._drop.sample(self._drop.predict(kept), middle)[0]
        return drops, slowest(self._latencies.sample(self._timed(kept), middle))[0]

    def _scores(self, drops: Floats, ratios: Floats) -> Floats:
        timed = zip(ratios, self._dense_ms, strict=True)
        return values_on_all(self.profile.dense_metric - drops, drops, timed, self.goal)

    def acquisition(self, points: Ints) -> Floats:
        """The logarithm [n] of the expected improvement at points, times the chance that they can be had.

        For `pareto` it is that of the area which all trials dominate together.
        """
        if not len(points):
            return np.zeros(0)
        kept = self.space.kept(points)
        drops, ratios = self._samples(kept)
        if self.goal.kind == Kind.PARETO:
            better = log_expected_area(*gains(drops, slowest(ratios)), self._front)
        else:
            better = log_expected_improvement(self._scores(drops, ratios), self._best, BLUR)
        return better + np.log(self._possible(kept))

    def again(self) -> Best | None:
        """The tried candidate that is most worth another run, with the logarithm of what the best score gains by it.

        A further observation moves what is expected of the candidate; the gain is the mean of the best score
        after it, less the best score now (the knowledge gradient of Frazier et al. 2009, without a point's neighbours).
        """
        if self.goal.kind == Kind.PARETO:
            return None  # a front has no best score that another run would settle
        order = np.argsort(-self._reached, kind="stable")
        places = [place for place in order[: 2 * AGAIN] if self._worth_another(self.facts.known[place])][:AGAIN]
        if not places:
            return None
        kept = self.space.matrix([self.facts.known[place] for place in places])
        band = self._drop.predict(kept)
        shift = band.std**2 / np.sqrt(band.std**2 + self._drop.noise**2)
        rest = np.sqrt(np.maximum(band.std**2 - shift**2, 0.0))
        ratios = self._latencies.sample(self._timed(kept), self._normals[:, 1:])
        means = [
            self._scores(self._drop.sample(Band(band.mean + shift * z, rest), self._normals[:, :1]), ratios).mean(
                axis=0
            )
            for z in ndtri((np.arange(SHIFTS) + 0.5) / SHIFTS)
        ]
        after = np.array(means)
        rises = [self._gain(after[:, column], place) for column, place in enumerate(places)]
        top = int(np.argmax(rises))
        point = self.space.exact(self.facts.known[places[top]])
        return Best(np.array(point, dtype=np.int64), float(np.log(max(rises[top], 1e-300))))

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
        tried = [self.space.nearest(self.facts.known[place]) for place in self._ranked()[:STARTS]]
        return np.array([*tried, *self.space.warm(self.profile)], dtype=np.int64).reshape(-1, len(self.space.sizes))

    def _ranked(self) -> list[int]:
        """Places in `facts.known`, the best first; for `pareto` those on the front, an even share of it first."""
        order: list[int] = np.argsort(-self._reached, kind="stable").tolist()
        if self.goal.kind != Kind.PARETO or not order:
            return order
        front = pareto.front(-self._front)
        even = [front[int(place)] for place in np.linspace(0, len(front) - 1, min(len(front), STARTS))]
        return list(dict.fromkeys([*even, *order]))

    def favourite(self) -> tuple[int, float]:
        """Which of `facts.known` the models expect the best score of, and that score."""
        place = int(self._reached.argmax())
        return place, float(self._reached[place])

    def expected(self, kept: Floats) -> dict[str, Any]:
        """What the models expect of kept channels [1, groups], with 90 % intervals; on each device of several, too."""
        ends = np.array([[0.0], [-INTERVAL], [INTERVAL]])
        drop = self._drop.sample(self._drop.predict(kept), ends)[:, 0]
        ratios = self._latencies.sample(self._timed(kept), ends)
        score = round(float(self.values(kept).mean()), 5)
        found: dict[str, Any] = {"drop": _interval(drop), "latency_ratio": _interval(slowest(ratios)[:, 0])}
        if len(ratios) > 1:
            by_name = zip(self.space.devices, ratios, strict=True)
            found["devices"] = {str(name): _interval(each[:, 0]) for name, each in by_name}
        return {**found, "score": score}

    def why(self, best: Best) -> dict[str, Any]:
        """What the models expect of a point, and why it is worth a trial."""
        kept = self.space.kept(best.point[None])
        expected, better = self.expected(kept), "log expected improvement"
        exploits = expected["score"] > round(self._best, 5)
        if self.goal.kind == Kind.PARETO:
            better, exploits = "log expected hypervolume improvement", self._beyond_front(kept)
        return {
            "kind": "exploit" if exploits else "explore",
            **expected,
            "best_score": round(self._best, 5),
            "acquisition": acquisition_of(better, best.score),
            **({"curves": "let go"} if self._drop.let_go else {}),
        }

    def _beyond_front(self, kept: Floats) -> bool:
        """Whether kept channels [1, groups] are expected to be dominated by no trial."""
        own = np.stack(gains(*self._middle(kept)), axis=1)
        return not bool((self._front >= own).all(axis=1).any())

    def _possible(self, kept: Floats) -> Floats:
        return possible(kept / self.space.widths, self._had, self._bad)


def _askable(goal: Goal, dense_ms: Sequence[float | None]) -> Goal:
    """The goal; while no trial has told the dense model's milliseconds on each device, one without a limit in them."""
    if goal.max_latency_ms is None or None not in dense_ms:
        return goal
    return replace(goal, max_latency_ms=None, max_latency_ratio=goal.max_latency_ratio or 1.0)


# A fit depends on the profile and the answers alone, so suggestions made in a row share it.
@lru_cache(maxsize=4)
def _profile(text: str) -> Profile:
    return Profile.from_json(json.loads(text))


@lru_cache(maxsize=4)
def _drop(profile: str, answers: Answers, columns: int) -> Drop:
    return drop_model(_profile(profile), _points(answers, columns), _numbers(answers))


@lru_cache(maxsize=4)
def _latencies(profile: str, told: tuple[Answers, ...], columns: int) -> Latencies:
    return Latencies(_profile(profile), [(_points(each, columns), _numbers(each)) for each in told])


def _timed(answers: Answers, columns: int) -> Answers:
    """The answers by the first columns alone, those that a latency may depend on."""
    return tuple((kept[:columns], ratio) for kept, ratio in answers)


def _points(answers: Answers, columns: int) -> Floats:
    return np.array([kept for kept, _ in answers], dtype=float).reshape(-1, columns)


def _numbers(answers: Answers) -> Floats:
    return np.array([number for _, number in answers], dtype=float)


def acquisition_of(name: str, value: float) -> dict[str, Any]:
    """An acquisition's name and value, as `why` has them."""
    return {"name": name, "value": round(value, 4)}


def _interval(ends: Floats) -> dict[str, float]:
    return {name: round(float(end), 5) for name, end in zip(("expected", "lo", "hi"), ends, strict=True)}
