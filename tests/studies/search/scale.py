"""A large sweep for the search, and what one suggestion takes: `python studies.search.scale.py GROUPS TRIALS PENDING`.

Prints one JSON line with the seconds of each of three suggestions and the process's largest memory, MB.
"""

import json
import resource
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from prunefleet.infra.controller.contract import StoredTrial, SweepSpec
from prunefleet.infra.controller.engines.bayes import BayesSearch
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.profiles.profile import Curve, Profile, warm_points
from prunefleet.objective.profiles.space import GroupSpec, Space

DENSE, LATENCIES, READINGS = 0.9, 150, 3
Kept = NDArray[np.float64]


@dataclass
class Large:
    """Groups in a chain: neighbours cost more than their sum, and a layer's time is its inputs times its outputs."""

    groups: tuple[GroupSpec, ...]
    costs: Kept
    rng: np.random.Generator

    @classmethod
    def of(cls, count: int) -> "Large":
        """`count` groups of 64 to 256 channels."""
        rng = np.random.default_rng(0)
        groups = tuple(GroupSpec(f"g{i:02d}", int(rng.choice([64, 128, 256])), 8) for i in range(count))
        return cls(groups, 0.01 * np.exp(rng.normal(0, 1, count)), rng)

    @property
    def widths(self) -> Kept:
        """The channels of each group."""
        return np.array([group.width for group in self.groups], dtype=float)

    def drop(self, kept: Kept) -> float:
        """The metric's drop."""
        alone = self.costs * (1 - kept / self.widths) ** 2
        return float(0.8 * (1 - np.exp(-(alone.sum() + 0.5 * np.sqrt(alone[:-1] * alone[1:]).sum()) / 0.8)))

    def latency(self, kept: Kept) -> float:
        """The latency ratio."""
        shares = kept / self.widths
        return float(0.1 + 0.9 * np.mean(np.concatenate([[1.0], shares[:-1]]) * shares))

    def random(self, deepest: float) -> Kept:
        """A candidate about as deep everywhere."""
        ratios = np.clip(self.rng.normal(self.rng.uniform(0, deepest), 0.2, len(self.groups)), 0, 0.9)
        return np.clip(np.round(self.widths * (1 - ratios) / 8) * 8, 8, self.widths)

    def curve(self, place: int) -> Curve:
        """A group alone, four times as dear as after fine-tuning."""
        width = self.groups[place].width
        counts = [int(count) // 8 * 8 for count in np.linspace(8, width, 6)]
        alone = [np.where(np.arange(len(self.groups)) == place, count, self.widths) for count in counts]
        metric = tuple(DENSE - min(4 * self.drop(kept), 0.8) for kept in alone)
        return Curve(self.groups[place].name, tuple(counts), metric, tuple(map(self.latency, alone)))

    def profile(self, goal: Goal) -> Profile:
        """Curves, latencies of mixed candidates, and warm points."""
        names = [group.name for group in self.groups]
        mixed = [self.random(0.8) for _ in range(LATENCIES)]
        latencies = tuple((dict(zip(names, map(int, kept), strict=True)), self.latency(kept)) for kept in mixed)
        curves = tuple(self.curve(place) for place in range(len(names)))
        found = Profile("large", "n", "b", "cpu", "f32", self.groups, "top1", DENSE, curves, latencies)
        return replace(found, warm=warm_points(found, goal))

    def trial(self, number: int, kept: Kept, *, running: bool = False) -> StoredTrial:
        """What a trial measures, or one that still runs."""
        ratios = zip(self.groups, kept, strict=True)
        params = {f"ratio.{group.name}": 1 - float(count) / group.width for group, count in ratios}
        if running:
            return StoredTrial(f"t{number}", params, "running")
        drop = self.drop(kept) + 0.001 * float(self.rng.normal())
        ratio = self.latency(kept) * (1 + 0.01 * float(self.rng.normal()))
        return StoredTrial(f"t{number}", params, "finished", 0.1, drop, ratio, DENSE - drop, "scored")


def main(groups: int, count: int, pending: int) -> None:
    """Three suggestions, a new answer before each."""
    problem, goal = Large.of(groups), Goal(kind="fastest", max_drop=0.02)
    profile = problem.profile(goal)
    config = {
        "method": "bayes",
        "metric": {"name": "score", "goal": "maximize"},
        "program": "prunefleet",
        "parameters": {
            "objective": {"parameters": {"kind": {"value": "fastest"}, "max_drop": {"value": 0.02}}},
            "ratio": Space(problem.groups).parameters(),
        },
    }
    sweep = SweepSpec.from_config("large", config, profile)
    warm = [np.array(list(profile.space.kept(ratios).values()), dtype=float) for ratios in profile.warm]
    kept = [*warm, *(problem.random(0.8) for _ in range(count + READINGS - len(warm)))]
    ended = [problem.trial(number, each) for number, each in enumerate(kept)]
    waiting = [problem.trial(10**6 + i, problem.random(0.5), running=True) for i in range(pending)]
    seconds = []
    for reading in range(READINGS):
        trials = [*ended[: count + reading], *waiting]
        began = time.perf_counter()
        BayesSearch().suggest(sweep, trials, sweep.seed(len(trials)))
        seconds.append(round(time.perf_counter() - began, 2))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"groups": groups, "trials": count, "pending": pending, "seconds": seconds, "mb": memory}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
