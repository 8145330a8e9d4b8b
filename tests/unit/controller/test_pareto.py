"""A front of candidates: what a point adds to it, and whether a search for it spreads along it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.infra.controller.contract import StoredTrial, Suggestion
from prunefleet.infra.controller.engines.bayes import BayesSearch
from prunefleet.infra.controller.engines.random import RandomSearch
from prunefleet.infra.controller.models.acquisition import Floats, log_expected_area
from prunefleet.infra.controller.pruning.channels import ChannelGrid, read
from prunefleet.infra.controller.pruning.search import PruningSearch
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.goals.pareto import front, hypervolume

from support.controller import GROUPS, Problem, kept_of, sweep

Pairs = list[tuple[float, float]]

PARETO = Goal(kind="pareto")
gain = st.floats(0.01, 1.0)
pair = st.tuples(gain, gain)


@given(st.lists(pair, max_size=8), st.lists(pair, min_size=1, max_size=4))
def test_a_point_is_worth_the_area_that_it_adds(front_gains: Pairs, draws: Pairs) -> None:
    """Averaged over samples, it is what the hypervolume grows by with each of them."""
    held = np.array(front_gains).reshape(-1, 2)
    sampled = np.array(draws)

    def area(gains: Floats) -> float:
        return hypervolume(1 - gains, (1.0, 1.0))

    wanted = np.mean([area(np.vstack([held, one])) - area(held) for one in sampled])
    found = np.exp(log_expected_area(sampled[:, :1], sampled[:, 1:], held))[0]
    assert abs(found - wanted) < 2e-6


def test_of_hopeless_points_the_largest_is_the_least_hopeless() -> None:
    """Points below the front differ still, so that a search climbs towards it."""
    held = np.array([[0.9, 0.9]])
    low, high = log_expected_area(np.array([[0.1, 0.5]]), np.array([[0.1, 0.5]]), held)
    assert low < high < np.log(1e-5)


def _reached(problem: Problem, method: str, seed: int, count: int = 24) -> tuple[float, int]:
    """The true hypervolume of all trials, two pending at a time, and how many of them are on the front."""
    profile = problem.profile(seed, PARETO) if method == "bayes" else None
    spec = replace(sweep(method, profile, name=f"s{seed}"), goal=PARETO)
    controller = BayesSearch() if method == "bayes" else RandomSearch()
    trials: list[StoredTrial] = []
    points = []
    for place in range(count):
        seen = [*trials[:-1], *(StoredTrial(each.name, each.params, "running") for each in trials[-1:])]
        answer = controller.suggest(spec, seen, spec.seed(place))
        assert isinstance(answer, Suggestion)
        kept = kept_of(answer)
        trials.append(problem.trial(f"t{place}", answer.params, kept, seed))
        points.append((problem.drop(kept), problem.latency(kept)))
    return hypervolume(points), len(front(points))


# One problem in `make test`.
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_search_for_a_front_spreads_along_it(seed: int) -> None:
    """Twenty-four trials dominate clearly more than random ones, with many of them on the front."""
    problem = Problem.seeded(200 + seed)
    (ours, many), (random, _) = (_reached(problem, method, seed) for method in ("bayes", "random"))
    assert ours > 1.1 * random
    assert many >= 8


def test_pending_trials_are_on_the_front() -> None:
    """What waits for its answer is not worth trying again beside it; a front has no run to repeat."""
    problem = Problem.seeded(3)
    profile = problem.profile(0, PARETO)
    spec = replace(sweep(profile=profile), goal=PARETO)
    space = ChannelGrid(spec, profile)
    trials = [
        problem.trial(f"t{place}", space.params(point, np.random.default_rng(0)), space.counts(point), 0)
        for place, point in enumerate(space.warm(profile))
    ]
    answer = BayesSearch().suggest(spec, trials, 1)
    assert (
        isinstance(answer, Suggestion) and answer.why["acquisition"]["name"] == "log expected hypervolume improvement"
    )
    level = np.array([space.exact(tuple(kept_of(answer)[spec.name] for spec in GROUPS))])
    before = PruningSearch(space, profile, PARETO, read(space, trials), 1)
    waiting = read(space, [*trials, StoredTrial("p", answer.params, "running")])
    after = PruningSearch(space, profile, PARETO, waiting, 1)
    assert after.acquisition(level)[0] < before.acquisition(level)[0] - 1
    assert before.again() is None
