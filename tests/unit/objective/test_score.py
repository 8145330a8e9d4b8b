"""What a measurement is worth: the properties that every goal's score must have, and who wins."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.goals.pareto import hypervolume
from prunefleet.objective.goals.score import GAIN, best, bound, feasible, hopeless, score, values, values_on_all
from prunefleet.objective.trial import Accuracy, Candidate, Device, Latency, Measurement

DENSE = 0.93
GOALS = [
    Goal("fastest", max_drop=0.01),
    Goal("fastest", max_drop=0.0),
    Goal("most_accurate", max_latency_ratio=0.5),
    Goal("most_accurate", max_latency_ms=0.8),
    Goal("tradeoff"),
    Goal("pareto"),
]
drops = st.floats(-0.05, 0.6, allow_nan=False)
ratios = st.floats(0.01, 3.0, allow_nan=False)
goals = st.sampled_from(GOALS)


def worth(goal: Goal, drop: float, ratio: float, baseline_ms: float = 2.0) -> float:
    return float(values(DENSE - drop, drop, ratio, goal, baseline_ms))


@given(goals, drops, drops, ratios)
def test_more_accurate_never_scores_less(goal: Goal, drop: float, other: float, ratio: float) -> None:
    """At equal latency, losing less of the metric never lowers the score."""
    assert worth(goal, min(drop, other), ratio) >= worth(goal, max(drop, other), ratio)


@given(goals, drops, ratios, ratios)
def test_faster_never_scores_less(goal: Goal, drop: float, ratio: float, other: float) -> None:
    """At equal accuracy, being faster never lowers the score."""
    assert worth(goal, drop, min(ratio, other)) >= worth(goal, drop, max(ratio, other))


@given(goals, drops, ratios, drops, ratios)
def test_a_dominated_candidate_never_scores_higher(goal: Goal, d1: float, r1: float, d2: float, r2: float) -> None:
    """A candidate that is at least as good in both never scores below the other."""
    assert worth(goal, min(d1, d2), min(r1, r2)) >= max(worth(goal, d1, r1), worth(goal, d2, r2)) - 1e-15


@given(st.sampled_from(GOALS[:4]), st.floats(0, 0.9), st.floats(1e-9, 2), drops, drops, ratios, ratios)
def test_a_feasible_one_beats_an_infeasible_one(
    goal: Goal, within: float, beyond: float, d1: float, d2: float, r1: float, r2: float
) -> None:
    """Whatever else they have, a candidate within the limit scores above one beyond it."""
    if goal.kind == "fastest":
        d1, d2 = goal.max_drop - within, goal.max_drop + beyond
    else:
        limit = goal.max_latency_ratio or goal.max_latency_ms / 2.0
        r1, r2 = limit * (1 - within), limit * (1 + beyond)
    assert worth(goal, d1, r1) >= 0 > worth(goal, d2, r2)


@given(st.sampled_from(GOALS[:4]), ratios, drops)
def test_the_score_has_no_step_at_the_limit(goal: Goal, ratio: float, drop: float) -> None:
    """Close to the limit the score is close to 0 on both sides, so that a smooth model can follow it."""
    if goal.kind == "fastest":
        near = [worth(goal, goal.max_drop + side, ratio) for side in (-1e-9, 1e-9)]
    else:
        limit = goal.max_latency_ratio or goal.max_latency_ms / 2.0
        near = [worth(goal, drop, limit * (1 + side)) for side in (-1e-9, 1e-9)]
    assert max(map(abs, near)) < 1e-3


@given(goals, drops, drops, ratios, ratios)
def test_small_changes_change_the_score_little(goal: Goal, drop: float, _: float, ratio: float, __: float) -> None:
    """The score is continuous everywhere."""
    here = worth(goal, drop, ratio)
    assert abs(worth(goal, drop + 1e-10, ratio) - here) < 1e-4
    assert abs(worth(goal, drop, ratio * (1 + 1e-10)) - here) < 1e-4


DEVICE = Device("local", "cpu", "h", "c", 2, 8.0, "linux", {})


def measured(drop: float, ratio: float, ms: float = 2.0) -> Measurement:
    p = [ms * ratio * k for k in (1.0, 1.1, 1.5, 3.0)]
    latency = Latency(DEVICE, "f32", ratio, ratio, ratio, *p, ms, ms, 100.0, 40)
    return Measurement(Candidate({}), {"a": 8}, Accuracy("top1", DENSE - drop), drop, (latency,), 10, 10, 10)


@given(st.sampled_from(GOALS), st.floats(0, 0.05), ratios, st.sampled_from([1e-3, 1e3]))
def test_the_unit_of_time_does_not_matter(goal: Goal, drop: float, ratio: float, unit: float) -> None:
    """Latencies and limit told in another unit of time give the same score."""
    other = replace(goal, max_latency_ms=goal.max_latency_ms and goal.max_latency_ms * unit)
    here, there = score(measured(drop, ratio), goal), score(measured(drop, ratio, 2.0 * unit), other)
    assert here.value == pytest.approx(there.value, abs=1e-9)


def test_the_fastest_of_the_accurate_enough_wins() -> None:
    """`fastest` ranks by latency within the limit, and every one of them above those beyond it."""
    points = [(0.0, 1.0), (0.004, 0.5), (0.008, 0.31), (0.009, 0.3), (0.012, 0.1), (0.05, 0.05)]
    ranked = sorted(points, key=lambda point: -worth(GOALS[0], *point))
    assert ranked[:4] == [(0.009, 0.3), (0.008, 0.31), (0.004, 0.5), (0.0, 1.0)]
    assert ranked[4:] == [(0.012, 0.1), (0.05, 0.05)]


@given(st.floats(0.0002, 0.05), st.floats(0.0002, 0.05), st.floats(0.01, 0.9), st.floats(0.01, 0.9))
def test_a_faster_feasible_candidate_wins_up_to_one_image_before_the_limit(
    slack: float, other: float, r1: float, r2: float
) -> None:
    """One image in 5,000 within the limit is enough: the ratio alone decides, from 0.1 % of the dense latency on."""
    fast, slow = min(r1, r2), max(r1, r2) + 0.001
    assert worth(GOALS[0], 0.01 - slack, fast) > worth(GOALS[0], 0.01 - other, slow)


def test_a_drop_of_exactly_the_limit_is_feasible_whatever_floating_point_says() -> None:
    """0.93 − 0.92 is more than 0.01 in binary, and still no more than a drop of 0.01; ties there go to the faster."""
    assert 0.93 - 0.92 > 0.01
    assert feasible(worth(GOALS[0], 0.93 - 0.92, 0.5))
    assert worth(GOALS[1], 0.0, 0.4) > worth(GOALS[1], 0.0, 0.5) > 0


def test_the_score_is_the_share_of_latency_saved() -> None:
    """A feasible candidate of `fastest` is worth 1 − ratio, so that a page's reader can check it."""
    assert worth(GOALS[0], 0.004, 0.3) == pytest.approx(0.7)
    assert worth(GOALS[0], 0.004, 5.0) > 0


def test_pareto_is_the_area_that_one_candidate_dominates() -> None:
    """`pareto` scores a candidate by its own hypervolume, in units of the whole area below the reference."""
    assert worth(Goal("pareto"), 0.02, 0.4) == pytest.approx(hypervolume([(0.02, 0.4)]) / 0.10)


@given(st.sampled_from(GOALS), st.lists(st.tuples(drops, ratios), min_size=1, max_size=8))
def test_the_best_is_feasible_where_one_is_and_has_the_largest_score(
    goal: Goal, points: list[tuple[float, float]]
) -> None:
    """No row scores above the best one; trials without a score do not take part."""
    scores = [None, *(worth(goal, *point) for point in points), float("nan")]
    chosen = best(range(len(scores)), lambda row: scores[row])
    assert chosen is not None
    assert scores[chosen] == max(scores[1:-1])
    assert best([], lambda row: row) is None
    assert best([3, 4], lambda row: None) is None


def test_the_best_of_measurements_goes_by_their_scores() -> None:
    """A measurement that loses too much is not the best, however fast."""
    found = [measured(0.0, 0.9), measured(0.02, 0.1), measured(0.009, 0.4)]
    assert best(found, lambda each: score(each, GOALS[0])) is found[2]


def test_the_worst_device_counts_and_terms_say_why() -> None:
    """With several devices the largest ratio is scored, and the terms hold what went into it."""
    slow, fast = measured(0.005, 0.6), measured(0.005, 0.2)
    both = replace(fast, latencies=(*fast.latencies, *slow.latencies))
    told = score(both, GOALS[0])
    assert told.value == score(slow, GOALS[0]).value
    assert told.feasible and told.terms["latency_ratio"] == 0.6
    assert told.terms["slack"] == pytest.approx(0.005)


def test_a_limit_in_milliseconds_holds_on_every_device() -> None:
    """A device with the smaller ratio and the slower dense model breaks it, and the terms are its own."""
    goal = Goal("most_accurate", max_latency_ms=1.0)
    quick, slow = measured(0.005, 0.6), measured(0.005, 0.2)
    late = replace(slow.latencies[0], baseline_p50_ms=10.0)
    both = replace(quick, latencies=(replace(quick.latencies[0], baseline_p50_ms=1.0), late))
    told = score(both, goal)
    assert not told.feasible and told.terms["latency_ratio"] == 0.2
    on_all = values_on_all(DENSE - 0.005, 0.005, [(0.6, 1.0), (0.2, 10.0)], goal)
    assert told.value == float(on_all) < score(replace(both, latencies=both.latencies[:1]), goal).value


def test_another_metric_than_the_goals_is_refused() -> None:
    """A trial that measured another metric than the goal names is no score at all."""
    with pytest.raises(BadInput, match=r"objective\.metric: got 'recall'"):
        score(measured(0.0, 0.5), Goal(metric="recall"))


def test_milliseconds_need_the_dense_latency() -> None:
    """A limit in milliseconds cannot be judged from a ratio alone."""
    with pytest.raises(BadInput, match="baseline_ms"):
        values(0.9, 0.0, 0.5, GOALS[3])


def test_many_are_scored_as_one_is() -> None:
    """The vectorised formula gives what it gives one at a time."""
    grid = np.linspace(-0.01, 0.05, 7)
    assert values(DENSE - grid, grid, 0.4, GOALS[0]).tolist() == [worth(GOALS[0], drop, 0.4) for drop in grid]


gains = st.floats(0, 0.05)


@given(goals, drops, ratios, gains)
def test_no_network_scores_above_its_bound(goal: Goal, drop: float, ratio: float, gain: float) -> None:
    """Whatever training makes of a candidate, unless it gains more than the margin, it scores below the bound."""
    drop = max(drop, -gain)
    assert worth(goal, drop, ratio) <= bound(ratio, goal, DENSE, 2.0, gain) + 1e-15


@given(goals, drops, ratios, drops, ratios)
def test_what_would_win_is_never_hopeless(goal: Goal, d1: float, r1: float, d2: float, r2: float) -> None:
    """A candidate whose score would come to more than the incumbent's is trained."""
    incumbent, would = worth(goal, d1, r1), worth(goal, max(d2, -GAIN), r2)
    if hopeless(bound(r2, goal, DENSE, 2.0), incumbent, goal):
        assert would <= incumbent


@given(goals, ratios, ratios, gains, gains)
def test_the_bound_falls_with_latency_and_rises_with_the_margin(
    goal: Goal, r1: float, r2: float, g1: float, g2: float
) -> None:
    """A slower candidate is never more hopeful, a larger margin never less."""
    bounds = [bound(max(r1, r2), goal, DENSE, 2.0, min(g1, g2)), bound(min(r1, r2), goal, DENSE, 2.0, max(g1, g2))]
    assert bounds[0] <= bounds[1]


def test_slower_than_the_incumbent_is_hopeless_where_the_fastest_is_sought() -> None:
    """And only there, and only where there is an incumbent: for the front of both figures everything is tried."""
    for ratio, expected in ((0.39, False), (0.41, True)):
        assert hopeless(bound(ratio, GOALS[0], DENSE), worth(GOALS[0], 0.0, 0.4), GOALS[0]) is expected
    assert not hopeless(bound(2.0, GOALS[0], DENSE), None, GOALS[0])
    assert not hopeless(bound(2.0, GOALS[5], DENSE), worth(GOALS[5], 0.0, 0.1), GOALS[5])
    assert hopeless(bound(0.6, GOALS[2], DENSE), worth(GOALS[2], 0.05, 0.4), GOALS[2])  # beyond the limit on latency
    assert not hopeless(bound(0.49, GOALS[2], DENSE), worth(GOALS[2], 0.0, 0.4), GOALS[2])
