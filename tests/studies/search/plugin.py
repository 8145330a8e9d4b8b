"""The controller as a plug-in of the synthetic search bench: its problems become a profile, a goal and stored trials.

A thin adapter. What a plan would measure on a network is measured on the problem: each group alone and mixed
candidates, untrained, at most `CALLS` of them; the metric of a group alone comes from the problem's one-shot curves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from prunefleet.agent.profile.points import Effort, points
from prunefleet.infra.controller.ask_tell import AskTell
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.profiles.profile import Curve, Profile, warm_points
from prunefleet.objective.profiles.space import GroupSpec, Space

CALLS = 400
LEVELS = 5
METRIC = "top1"


class PruneFleet:
    """Asks and tells the product's controller; see the bench for the contract."""

    def __init__(
        self, space: Sequence[Mapping[str, Any]], objective: Mapping[str, Any], info: Mapping[str, Any], seed: int
    ) -> None:
        self._names = [axis["name"] for axis in space]
        self._dense, self._dense_ms = float(objective["base_acc"]) / 100, float(objective["lat0"])
        self._goal = _goal(objective)
        self._asked: dict[tuple[float, ...], list[str]] = {}
        ratios = {axis["name"]: {"min": axis["min"], "max": axis["max"]} for axis in space}
        config = {
            "method": "bayes",
            "metric": {"name": "score", "goal": "maximize"},
            "parameters": {"ratio": {"parameters": ratios}, "objective": {"parameters": _constants(self._goal)}},
        }
        self._search = AskTell(config, self._profile(info), f"bench-{seed}")

    def ask(self, n: int) -> list[dict[str, float]]:
        """The next `n` configurations."""
        return [self._begun(name, found.params) for name, found in self._search.ask(n).items()]

    def tell(self, config: Mapping[str, float], result: Mapping[str, float]) -> None:
        """What a trial came to."""
        name = self._asked[self._key(config)].pop(0)
        self._search.tell(name, result["latency"] / self._dense_ms, result["acc"] / 100, baseline_ms=self._dense_ms)

    def recommend(self) -> dict[str, float]:
        """The configuration that the models think best of."""
        found = self._search.recommend()
        assert found is not None
        params = next(trial.params for trial in self._search.trials if trial.name == found.trial)
        return {axis: float(params[f"ratio.{axis}"]) for axis in self._names}

    def _begun(self, name: str, params: Mapping[str, Any]) -> dict[str, float]:
        config = {axis: float(params[f"ratio.{axis}"]) for axis in self._names}
        self._asked.setdefault(self._key(config), []).append(name)
        return config

    def _key(self, config: Mapping[str, float]) -> tuple[float, ...]:
        return tuple(float(config[axis]) for axis in self._names)

    def _profile(self, info: Mapping[str, Any]) -> Profile:
        groups = tuple(
            GroupSpec(name, int(width), int(info["round_to"]))
            for name, width in zip(self._names, info["channels"], strict=True)
        )
        wanted = points(Space(groups), Effort(levels=LEVELS, mixed=CALLS - LEVELS * len(groups)))
        took = info["measure_latency"]([_ratios(groups, kept) for _, kept in wanted])
        ratio = [float(ms) / self._dense_ms for ms in took]
        curves = []
        for group, drops in zip(groups, info["sens_drop"], strict=True):
            alone = [
                (kept[group.name], each) for (name, kept), each in zip(wanted, ratio, strict=True) if name == group.name
            ]
            lost = PchipInterpolator([0.0, *info["sens_ratios"]], [0.0, *drops])
            kept, ratios = zip(*sorted([*alone, (group.width, 1.0)]), strict=True)
            metric = [min(max(self._dense - float(lost(1 - count / group.width)) / 100, 0.0), 1.0) for count in kept]
            curves.append(Curve(group.name, tuple(kept), tuple(metric), tuple(ratios)))
        profile = Profile(
            task="bench",
            network_hash="bench",
            baseline_hash="bench",
            device="bench",
            precision="f32",
            groups=groups,
            metric=METRIC,
            dense_metric=self._dense,
            curves=tuple(curves),
            latencies=tuple((kept, each) for (_, kept), each in zip(wanted, ratio, strict=True)),
        )
        return replace(profile, warm=warm_points(profile, self._goal))


class Shuffled(PruneFleet):
    """The same, told each group's one-shot curve for another group's: curves that mislead must not hurt for long."""

    def __init__(
        self, space: Sequence[Mapping[str, Any]], objective: Mapping[str, Any], info: Mapping[str, Any], seed: int
    ) -> None:
        order = np.random.default_rng(seed).permutation(len(space))
        curves = [info["sens_drop"][place] for place in order]
        super().__init__(space, objective, {**info, "sens_drop": curves}, seed)


def _ratios(groups: Sequence[GroupSpec], kept: Mapping[str, int]) -> dict[str, float]:
    return {group.name: 1 - kept[group.name] / group.width for group in groups}


def _goal(objective: Mapping[str, Any]) -> Goal:
    """The goal of the product that is the bench's objective: A tradeoff, B most accurate, C Pareto, D fastest."""
    kind = objective["kind"]
    if kind == "A":
        return Goal(kind="tradeoff", metric=METRIC, weight=float(objective["w"]))
    if kind == "B":
        share = float(objective["target"]) / float(objective["lat0"])
        return Goal(kind="most_accurate", metric=METRIC, max_latency_ratio=share)
    if kind == "C":
        return Goal(kind="pareto", metric=METRIC)
    return Goal(kind="fastest", metric=METRIC, max_drop=float(objective["max_drop"]) / 100)


def _constants(goal: Goal) -> dict[str, Any]:
    """The goal as a block of a sweep file."""
    return {name: {"value": value} for name, value in goal.to_json().items() if value is not None and name != "devices"}
