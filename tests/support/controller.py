"""A pruning problem in a formula, so that a search can be judged in milliseconds: six coupled groups on a grid of 8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from prunefleet.infra.controller.contract import StoredTrial, Suggestion, SweepSpec
from prunefleet.objective.goals import score
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.profiles.profile import Curve, Profile, warm_points
from prunefleet.objective.profiles.space import GroupSpec, Space, levels

WIDTHS = {"stem": 32, "a_in": 64, "a_out": 64, "b_in": 96, "b_out": 96, "c_out": 128}
GROUPS = tuple(GroupSpec(name, width, 8) for name, width in WIDTHS.items())
DENSE = 0.93
NAMES = list(WIDTHS)
GOAL = Goal(kind="fastest", max_drop=0.02)


@dataclass(frozen=True)
class Problem:
    """Group `i` costs `cost * ratio ** shape`, neighbours more than their sum; a layer's time is inputs × outputs.

    Channels come in steps of 8, so latency is a staircase in the ratio.
    """

    cost: tuple[float, ...]
    shape: tuple[float, ...]
    time: tuple[float, ...]
    noise: float = 0.001

    @staticmethod
    def seeded(seed: int) -> Problem:
        """An instance; every one is different, none is degenerate."""
        rng = np.random.default_rng(seed)
        cost = np.exp(rng.normal(np.log(0.08), 0.9, 6))
        return Problem(tuple(cost), tuple(rng.uniform(1.5, 3.0, 6)), tuple(rng.uniform(0.5, 2.0, 6)))

    def drop(self, kept: Mapping[str, int]) -> float:
        """The metric's true drop, a fraction."""
        ratios = np.array([1 - kept[name] / WIDTHS[name] for name in NAMES])
        single = np.array(self.cost) * ratios ** np.array(self.shape)
        pairs = np.sqrt(single[:-1] * single[1:]).sum()
        return float(0.8 * (1 - np.exp(-(single.sum() + 0.5 * pairs) / 0.8)))

    def latency(self, kept: Mapping[str, int]) -> float:
        """The true latency ratio: a floor, and producer x consumer channels."""
        shares = np.array([1.0, *(kept[name] / WIDTHS[name] for name in NAMES)])
        time = np.array(self.time)
        return float(0.05 + 0.95 * (time * shares[:-1] * shares[1:]).sum() / time.sum())

    def score(self, kept: Mapping[str, int], goal: Goal = GOAL) -> float:
        """The true score."""
        drop = np.array([self.drop(kept)])
        return float(score.values(DENSE - drop, drop, np.array([self.latency(kept)]), goal)[0])

    def trial(self, name: str, params: Mapping[str, Any], kept: Mapping[str, int], seed: int) -> StoredTrial:
        """What a trial measures, with its noise."""
        rng = np.random.default_rng([seed, *kept.values()])
        drop = self.drop(kept) + self.noise * float(rng.normal())
        ratio = self.latency(kept) * (1 + 0.01 * float(rng.normal()))
        value = float(score.values(np.array([DENSE - drop]), np.array([drop]), np.array([ratio]), GOAL)[0])
        return StoredTrial(name, params, "finished", value, drop, ratio, DENSE - drop, "scored")

    def profile(self, seed: int = 0, goal: Goal = GOAL) -> Profile:
        """Curves about four times too steep, each in its own way, as before fine-tuning, with their warm points."""
        rng = np.random.default_rng(seed)
        curves = tuple(self._curve(spec, 4 * float(np.exp(rng.normal(0, 0.3)))) for spec in GROUPS)
        profile = Profile("formula", "n", "b", "cpu", "f32", GROUPS, "top1", DENSE, curves)
        return replace(profile, warm=warm_points(profile, goal))

    def _curve(self, spec: GroupSpec, factor: float) -> Curve:
        alone = [{**WIDTHS, spec.name: kept} for kept in levels(spec)]
        metric = tuple(DENSE - min(factor * self.drop(kept), 0.8) for kept in alone)
        return Curve(spec.name, levels(spec), metric, tuple(self.latency(kept) for kept in alone))


def sweep(method: str = "bayes", profile: Profile | None = None, name: str = "s", **config: Any) -> SweepSpec:
    """A sweep over all ratios of the problem, with constants around them."""
    return SweepSpec.from_config(name, {**sweep_config(method), **config}, profile)


def sweep_config(method: str = "bayes") -> dict[str, Any]:
    """Its file."""
    return {
        "method": method,
        "metric": {"name": "score", "goal": "maximize"},
        "program": "prunefleet",
        "parameters": {
            "task": {"value": "formula"},
            "objective": {"parameters": {"kind": {"value": "fastest"}, "max_drop": {"value": 0.02}}},
            "ratio": Space(GROUPS).parameters(),
        },
    }


def kept_of(suggestion: Suggestion) -> dict[str, int]:
    """The channels that a suggestion keeps."""
    return Space(GROUPS).kept(suggestion.config["ratio"])
