"""Which formula of `fastest` a plain Bayesian search climbs best, and whether its winner is right; `-s` tells."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from prunefleet.infra.controller.contract import StoredTrial, Suggestion
from prunefleet.infra.controller.engines import generic
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.goals.score import values

from support.controller import DENSE, Problem, kept_of, sweep

pytestmark = pytest.mark.bench
LIMIT, TRIALS, NETWORKS = 0.02, 30, 8
GOAL = Goal("fastest", max_drop=LIMIT)
Formula = Callable[[float, float], float]


def ramp(tau: float, gain: Callable[[float], float]) -> Formula:
    """A limited score of another ramp (`tau` in units of the limit) and another gain."""

    def worth(drop: float, ratio: float) -> float:
        slack = LIMIT - drop
        within = (1 - np.exp(-slack / tau / LIMIT)) * gain(ratio) if slack >= 0 else 0.0
        return float(within if slack >= 0 else np.expm1(slack / 3 / LIMIT) / (1 + gain(ratio)))

    return worth


def ours(drop: float, ratio: float) -> float:
    return float(values(DENSE - drop, drop, ratio, GOAL))


FORMULAS: dict[str, Formula] = {
    "ours": ours,
    "ramp 0.1": ramp(0.1, lambda ratio: 1 - ratio),
    "ramp 0.3": ramp(0.3, lambda ratio: 1 - ratio),
    "1/(1 + ratio)": ramp(0.002, lambda ratio: 1 / (1 + ratio)),
}


def search(problem: Problem, formula: Formula, seed: int) -> tuple[float, float]:
    """Search by the scalar alone; the least feasible latency ratio that was met, and that of the best by score."""
    spec, trials = sweep(name=f"s{seed}"), list[StoredTrial]()
    for number in range(TRIALS):
        asked = generic.suggest(spec, trials, number)
        assert isinstance(asked, Suggestion)
        found = problem.trial(str(number), asked.params, kept_of(asked), seed)
        assert found.drop is not None and found.latency_ratio is not None
        trials.append(replace(found, value=formula(found.drop, found.latency_ratio)))
    told = np.array([(trial.drop, trial.latency_ratio, trial.value) for trial in trials])
    feasible = told[told[:, 0] <= LIMIT]
    if not len(feasible):
        return 1.0, 1.0
    return float(feasible[:, 1].min()), float(feasible[feasible[:, 2].argmax(), 1])


@pytest.mark.timeout(1800)
def test_our_formula_picks_the_fastest_and_is_climbed_as_well_as_others() -> None:
    """The winner by score is the fastest feasible one, and no other formula leads to clearly faster ones."""
    found = {
        name: np.array([search(Problem.seeded(seed), formula, seed) for seed in range(NETWORKS)])
        for name, formula in FORMULAS.items()
    }
    for name, pairs in found.items():
        least, winner = pairs.T
        wrong = int((winner > least + 1e-9).sum())
        error = least.std(ddof=1) / np.sqrt(NETWORKS)
        means = f"least feasible {least.mean():.3f} ± {error:.3f}, winner {winner.mean():.3f}"
        print(f"{name:14s} n={NETWORKS}: {means}, not the fastest feasible one in {wrong}")
    ours, others = found.pop("ours"), found
    assert (ours[:, 1] <= ours[:, 0] + 1e-9).mean() >= 0.85
    for other in others.values():
        difference = ours[:, 1] - other[:, 1]
        assert difference.mean() <= 2 * difference.std(ddof=1) / np.sqrt(NETWORKS)
