"""The winner against its controls: who is chosen, which uniform rungs are needed, and how lines are compared."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_task import TinyTask

from prunefleet.agent.answer.controls import Evaluated, Point, against_uniform, evaluate, line
from prunefleet.agent.answer.uniform import evenly, wanted
from prunefleet.agent.answer.winner import choose, gain, published
from prunefleet.agent.tasks.task import Budget, interval_by
from prunefleet.agent.tracking.tracked_run import RunRecord
from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.goal import Goal
from prunefleet.objective.goals.stats import OfMeans, Recomputed

RANDOM = np.random.default_rng(0)


def _run(name: str, drop: float = 0.005, holdout: float = 0.005, ratio: float = 0.5, seed: int = 0) -> RunRecord:
    summary = {"val_top1": 0.93 - drop, "holdout_top1": 0.925 - holdout, "metric_drop": drop, "latency_ratio": ratio}
    return RunRecord(name, "finished", {"kept": {name[0]: len(name)}, "recipe": {"seed": seed}}, summary)


FASTEST = Goal(max_drop=0.01)


def test_the_fastest_within_the_limit_wins() -> None:
    """Where validation and holdout agree, the fastest candidate within the limit wins."""
    run, agrees = choose([_run("a", ratio=0.5), _run("b", ratio=0.3)], FASTEST, 0.925)
    assert (run.name, agrees) == ("b", True)


def test_what_ships_is_what_was_scored() -> None:
    """The latest version of a run's candidate: an attempt that was killed before its score may have left the first."""
    assert published(_run("a")) == "candidate-a:latest"


def test_a_winner_that_holdout_contradicts_is_passed_over() -> None:
    """A candidate that both parts together put beyond the limit was lucky on validation: the next one is taken."""
    run, agrees = choose([_run("lucky", 0.008, holdout=0.02, ratio=0.2), _run("b")], FASTEST, 0.925)
    assert (run.name, agrees) == ("b", True)


def test_a_winner_just_beyond_the_limit_on_holdout_is_marked() -> None:
    """Both parts together decide; that holdout alone is beyond the limit is said."""
    run, agrees = choose([_run("close", 0.004, holdout=0.012, ratio=0.2), _run("b")], FASTEST, 0.925)
    assert (run.name, agrees) == ("close", False)


def test_a_candidate_that_ran_twice_goes_by_the_mean_of_its_runs() -> None:
    """A second run beyond the limit takes the first one's luck away; where both hold it, the better one ships."""
    lucky, other = _run("fast1", 0.006, 0.006, 0.2), _run("b")
    assert choose([lucky, _run("fast2", 0.02, 0.02, 0.2, seed=1), other], FASTEST, 0.925) == (other, True)
    again = _run("fast2", 0.004, 0.005, 0.2, seed=1)
    assert choose([lucky, again, other], FASTEST, 0.925) == (again, True)


def test_where_none_is_within_the_limit_the_nearest_wins() -> None:
    """No candidate within the limit: the one that misses it least, marked."""
    run, agrees = choose([_run("far", 0.05, 0.05, 0.2), _run("near", 0.011, 0.012)], FASTEST, 0.925)
    assert (run.name, agrees) == ("near", False)


def test_a_goal_without_a_drop_limit_takes_the_best_on_both() -> None:
    """Holdout counts for other goals too, and there is no limit on the drop that it could contradict."""
    goal = Goal(kind="most_accurate", max_latency_ratio=0.6)
    assert choose([_run("lucky", -0.01, holdout=0.05), _run("b")], goal, 0.925) == (_run("b"), True)


def test_the_gain_is_what_the_search_added_to_the_warm_points() -> None:
    """Hypervolume of warm runs, of all, and their difference."""
    warm, better = _run("w", drop=0.05, ratio=0.5), _run("ab", drop=0.05, ratio=0.4)
    found = gain([warm, better], [{"w": 1}])
    assert found == pytest.approx({"warm": 0.025, "all": 0.03, "gain": 0.005})


def test_rungs_beside_the_winners_latency_come_first() -> None:
    """The nearest rungs on both sides in latency are wanted, then slower ones until one is as good as the winner."""
    ratio = {"winner": 0.35, "r1": 0.1, "r2": 0.3, "r3": 0.4, "r4": 0.6, "r5": 0.8}
    judged: dict[str, float] = {}
    order = []
    while (name := wanted(ratio, judged, quality=0.92)) is not None:
        order.append(name)
        judged[name] = {"r2": 0.90, "r3": 0.91, "r4": 0.925}[name]
    assert order == ["r2", "r3", "r4"]


def test_a_long_ladder_is_thinned_evenly() -> None:
    """Of hundreds of uniform candidates some are measured, both ends among them; a short ladder stays whole."""
    ladder = [{"a": count} for count in range(160)]
    chosen = [rung["a"] for rung in evenly(ladder, 16)]
    assert len(chosen) == 16 and (chosen[0], chosen[-1]) == (0, 159) and set(np.diff(chosen)) <= {10, 11}
    assert evenly(ladder[:5], 16) == ladder[:5] and evenly([], 16) == []


def test_a_line_is_followed_both_ways() -> None:
    """Quality at a latency and latency at a quality lie on the same segments; slower and worse points do not count."""
    ratios, qualities = [0.2, 0.4, 0.6, 1.0], [0.88, 0.90, 0.89, 0.92]
    assert line(ratios, qualities, 0.3, 0.89) == pytest.approx((0.89, 0.3))
    assert line(ratios, qualities, 0.6, 0.91) == pytest.approx((0.90, 0.8), abs=1e-6)
    assert line(ratios, qualities, 0.1, 0.5) == pytest.approx((0.88, 0.2))
    assert line(ratios, qualities, 2.0, 0.99) == pytest.approx((0.92, 1.0))


def _point(quality: float, ms: float) -> Point:
    return Point(OfMeans((RANDOM.random(4000) < quality).astype(float)), ms * (1 + 0.02 * RANDOM.random(200)))


def test_a_better_network_gains_beyond_noise() -> None:
    """A winner above the uniform line gains quality at its latency and saves latency at its quality, beyond noise."""
    uniform = [_point(0.80, 0.2), _point(0.88, 0.5)]
    found = against_uniform(_point(0.92, 0.3), uniform, _point(0.93, 1.0), n=200)
    quality, latency = found["equal_latency"], found["equal_quality"]
    assert 0.05 < quality["gain_lo"] < quality["gain"] < quality["gain_hi"] < 0.12
    assert 0.5 < latency["saved_lo"] < latency["saved"] < latency["saved_hi"] < 0.75
    assert quality["test_lo"] <= quality["test"] <= quality["test_hi"]


def test_a_network_on_the_line_gains_nothing() -> None:
    """A winner that is a uniform one itself gains nothing, and the interval says so."""
    same = _point(0.9, 0.4)
    found = against_uniform(same, [same, _point(0.8, 0.2)], _point(0.93, 1.0), n=200)
    assert found["equal_latency"]["gain"] == pytest.approx(0, abs=1e-9)
    assert found["equal_quality"]["saved"] == pytest.approx(0, abs=1e-9)


def test_test_quality_comes_with_intervals_where_examples_are_known() -> None:
    """A task that tells each example gives Wilson and paired intervals; another one gives the metric alone."""
    task = TinyTask()
    judged = evaluate(task, task.network(), {"a": 1}, "top1")
    assert judged.metric == pytest.approx(task.evaluate(judged.network, "test")["top1"])
    assert judged.quality()["test_lo"] < judged.metric < judged.quality()["test_hi"]
    assert judged.drop_from(judged) == {"test_drop": 0.0, "test_drop_lo": 0.0, "test_drop_hi": 0.0}
    bare = Evaluated({}, judged.network, 0.5)
    assert bare.quality() == {"test": 0.5} and list(bare.drop_from(judged)) == ["test_drop"]


class _Halves(TinyTask):
    """The tiny task evaluated by a quality that is no mean over examples."""

    metrics = ("f1",)


def test_a_metric_that_is_no_mean_has_intervals_too() -> None:
    """F1 and its like come with bootstrap intervals, of the drop in pairs, from what single examples contribute."""
    task = _Halves()
    network = task.network()
    task.fit(network, Budget(0.5, 0.1), lambda row: True)
    dense = evaluate(task, network, {}, "f1")
    assert isinstance(dense.on_test, OfMeans) and dense.on_test.columns.shape == (500, 3)
    assert dense.metric == pytest.approx(task.evaluate(dense.network, "test")["f1"])
    told = dense.quality()
    assert told["test_lo"] <= told["test"] <= told["test_hi"] and told["test_hi"] > told["test_lo"]
    assert dense.drop_from(dense) == {"test_drop": 0.0, "test_drop_lo": 0.0, "test_drop_hi": 0.0}
    other = Point(dense.on_test, 0.5 * np.ones(50))
    found = against_uniform(other, [other], Point(dense.on_test, np.ones(50)), n=50)
    assert found["equal_latency"]["gain"] == pytest.approx(0)


def test_a_share_of_all_is_not_certain() -> None:
    """Where every defect of few was found, the interval of the recall is Wilson's of those few, not a point."""
    examples = np.array([[1.0, 1.0]] * 20 + [[0.0, 0.0]] * 80)
    recall = OfMeans(examples, lambda means: means[..., 0] / means[..., 1])
    told = Evaluated({}, torch.nn.Identity(), 1.0, recall).quality()
    assert (told["test_lo"], told["test_hi"]) == pytest.approx((0.8389, 1.0), abs=1e-4)


class _Simple:
    """A task that says which examples are right, and no more."""

    metrics = ("share", "other")

    def correct(self, network: object, split: str) -> torch.Tensor:
        return torch.tensor([True, True, True, False])

    def evaluate(self, network: object, split: str) -> dict[str, float]:
        return {"share": 0.75, "other": 0.5}


def test_a_task_may_tell_shares_alone() -> None:
    """`correct` gives the first metric its Wilson interval; another metric of that task has none."""
    told = evaluate(_Simple(), torch.nn.Identity(), {}, "share").quality()  # type: ignore[arg-type]
    assert (told["test"], told["test_lo"], told["test_hi"]) == pytest.approx((0.75, 0.3006, 0.9544), abs=1e-4)
    assert evaluate(_Simple(), torch.nn.Identity(), {}, "other").quality() == {"test": 0.5}  # type: ignore[arg-type]


class _Medians(_Simple):
    """A task whose metric is no function of means: how far the middle one of eleven answers goes."""

    metrics = ("middle", "share")

    def resampled(
        self, network: torch.nn.Module, split: str, metric: str
    ) -> tuple[int, Callable[[torch.Tensor], float]] | None:
        answers = torch.linspace(0, 1, 11) * network(torch.ones(()))
        return (11, lambda rows: float(answers[rows].median())) if metric == "middle" else None


def test_a_metric_may_be_computed_anew_on_resamples() -> None:
    """`resampled` gives interval, paired difference and the gain over uniform pruning in the metric itself."""
    task: Any = _Medians()
    dense, other = (evaluate(task, net, {}, "middle") for net in (torch.nn.Identity(), torch.nn.Hardtanh(0, 0.9)))
    told, lost = dense.quality(), other.drop_from(dense)
    assert told["test"] == 0.5 and 0.1 < told["test_lo"] < 0.5 < told["test_hi"] < 0.9
    assert lost["test_drop"] == pytest.approx(0.05) and 0 < lost["test_drop_lo"] < 0.05 < lost["test_drop_hi"] < 0.1
    assert isinstance(dense.on_test, Recomputed) and isinstance(other.on_test, Recomputed)
    rungs = [Point(other.on_test, 0.5 * np.ones(50)), Point(dense.on_test, np.ones(50))]
    found = against_uniform(rungs[0], rungs[:1], rungs[1])
    assert found["equal_latency"]["gain"] == pytest.approx(0)


def test_a_metric_that_resampled_leaves_out_goes_by_the_other_methods() -> None:
    """None of `resampled` for a metric: `correct` tells its examples where that is the first one, else nothing does."""
    task: Any = _Medians()
    assert evaluate(task, torch.nn.Identity(), {}, "share").quality() == {"test": 0.75}
    task.metrics = ("share", "middle")
    assert set(evaluate(task, torch.nn.Identity(), {}, "share").quality()) == {"test", "test_lo", "test_hi"}


def test_it_is_said_which_method_gives_an_interval() -> None:
    """The task's method for a metric is named; where it has none, the one that would give the metric an interval."""
    task: Any = _Simple()
    assert interval_by(TinyTask(), "top1") == "interval of top1 by `statistics`"
    assert interval_by(_Medians(), "middle") == "interval of middle by `resampled`"  # type: ignore[arg-type]
    assert interval_by(task, "share") == "interval of share by `correct`"
    assert interval_by(task, "other").startswith(
        "no interval of other: give the task resampled(network, split, metric)"
    )


@pytest.mark.parametrize("returned", [0.5, (3, 0.5), (lambda rows: 0.5,), ("3", lambda rows: 0.5)])
def test_what_resampled_returns_is_checked(returned: object) -> None:
    """Anything but a number of examples with a function is refused in one line."""
    task: Any = _Medians()
    task.resampled = lambda network, split, metric: returned
    with pytest.raises(BadInput, match=r"what `resampled` returns: got .*; return the number of examples"):
        evaluate(task, torch.nn.Identity(), {}, "middle")
