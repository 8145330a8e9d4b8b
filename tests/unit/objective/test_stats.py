"""Fronts, areas and intervals, held against libraries, known values and their own coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prunefleet.objective.errors import BadInput
from prunefleet.objective.goals.pareto import REFERENCE, front, hypervolume
from prunefleet.objective.goals.stats import (
    OfMeans,
    Quality,
    Recomputed,
    Rows,
    bootstrap_interval,
    paired_bootstrap_difference,
    wilson_interval,
)

clouds = st.integers(0, 12).flatmap(lambda n: arrays(float, (n, 2), elements=st.floats(0, 1.2)))


@given(clouds)
def test_no_point_of_the_front_is_dominated(points: np.ndarray) -> None:
    """What is on the front is dominated by nothing, and what is not is dominated or repeated."""
    places = front(points)
    for place, point in enumerate(points):
        better = ((points <= point).all(axis=1) & (points < point).any(axis=1)).any()
        equal_before = any((points[other] == point).all() for other in places if other != place)
        assert (place in places) == (not better and not equal_before)


@settings(max_examples=30, deadline=None)
@given(clouds)
def test_the_area_is_what_botorch_says(points: np.ndarray) -> None:
    """The dominated area equals BoTorch's hypervolume."""
    import torch
    from botorch.utils.multi_objective.hypervolume import Hypervolume

    theirs = Hypervolume(-torch.tensor(REFERENCE, dtype=torch.double))
    chosen = torch.tensor(-points[front(points)], dtype=torch.double)
    assert hypervolume(points) == pytest.approx(theirs.compute(chosen) if len(chosen) else 0.0, abs=1e-9)


@given(clouds, st.tuples(st.floats(0, 0.09), st.floats(0, 0.99)))
def test_a_further_point_never_shrinks_the_area(points: np.ndarray, point: tuple[float, float]) -> None:
    """Adding a candidate never lowers the hypervolume."""
    assert hypervolume(np.vstack([points, point])) >= hypervolume(points) - 1e-12


def test_wilson_gives_known_values() -> None:
    """The Wilson interval equals published values, and stays inside [0, 1]."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe, Stat. Med. 1998, table I
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson_interval(20, 20)[1] == 1.0


def test_differences_over_the_same_examples() -> None:
    """A paired difference is the mean of differences, and its interval holds it; unequal lists are refused."""
    ours, theirs = np.ones(200), np.r_[np.zeros(20), np.ones(180)]
    mean, low, high = paired_bootstrap_difference(OfMeans(ours), OfMeans(theirs))
    assert mean == pytest.approx(0.1)
    assert 0.05 < low < mean < high < 0.15
    with pytest.raises(BadInput, match="theirs"):
        paired_bootstrap_difference(OfMeans(ours), OfMeans(theirs[1:]))


def test_resamples_are_of_the_same_examples() -> None:
    """Qualities of as many examples are resampled alike, so that a column and its double stay one and two."""
    figures = np.random.default_rng(0).random(50)
    once, twice = OfMeans(figures).resampled(100), OfMeans(2 * figures).resampled(100)
    assert once.shape == (100,) and np.allclose(2 * once, twice)
    assert once.std() == pytest.approx(figures.std() / np.sqrt(50), rel=0.25)


def _ratio(means: np.ndarray) -> np.ndarray:
    return means[..., 0] / means[..., 1]


def test_a_quality_need_not_be_a_mean() -> None:
    """Intervals of a quotient of means cover it as often as they should, and shrink with the examples."""
    random = np.random.default_rng(0)
    held, widths = 0, []
    for seed in range(60):
        unions = random.random(200) + 0.5
        examples = np.stack([0.8 * unions + 0.1 * random.standard_normal(200), unions], 1)
        low, high = bootstrap_interval(OfMeans(examples, _ratio), n=400, seed=seed)
        held, widths = held + (low <= 0.8 <= high), [*widths, high - low]
    assert 52 <= held <= 60 and max(widths) < 0.06
    better = examples + np.array([0.05, 0.0])
    gain, low, high = paired_bootstrap_difference(OfMeans(better, _ratio), OfMeans(examples, _ratio), n=400)
    assert low < gain < high and gain == pytest.approx(0.05 / examples[:, 1].mean())


def test_figures_that_are_none_are_refused() -> None:
    """No example, or one that is not finite, is refused."""
    for wrong in ([], [[float("nan")]], np.zeros((2, 2, 2))):
        with pytest.raises(BadInput, match="examples"):
            OfMeans(wrong)


def test_what_is_computed_anew_is_what_means_give() -> None:
    """A metric computed on each resample has the interval and the paired difference of the same metric of means."""
    figures = np.random.default_rng(0).random((40, 2)) + np.array([0.0, 0.5])
    better = figures + np.array([0.1, 0.0])

    def both(rows: np.ndarray) -> tuple[Quality, Quality]:
        return OfMeans(rows, _ratio), Recomputed(len(rows), lambda chosen: float(_ratio(rows[chosen].mean(0))))

    (means, anew), (means_better, anew_better) = both(figures), both(better)
    assert anew.whole() == pytest.approx(means.whole()) and anew.count == means.count
    assert bootstrap_interval(anew, n=200) == pytest.approx(bootstrap_interval(means, n=200))
    assert paired_bootstrap_difference(anew_better, anew, n=200) == pytest.approx(
        paired_bootstrap_difference(means_better, means, n=200)
    )


def test_a_metric_is_computed_once_for_each_resample() -> None:
    """An interval computes the metric a stated number of times; whoever asks for these resamples again has them."""
    asked: list[Rows] = []
    quality = Recomputed(30, lambda rows: float(asked.append(rows) or rows.mean()))
    bootstrap_interval(quality), paired_bootstrap_difference(quality, quality)
    assert len(asked) == Recomputed.resamples + 2  # of the difference, both wholes
    assert all(len(rows) == 30 and rows.min() >= 0 and rows.max() < 30 for rows in asked)


def test_intervals_computed_anew_cover() -> None:
    """The 95 % interval of a metric that is no function of means, the median, holds the true one about so often."""
    held = 0
    for seed in range(60):
        drawn = np.random.default_rng(seed).standard_normal(60)
        low, high = bootstrap_interval(Recomputed(60, lambda rows, drawn=drawn: float(np.median(drawn[rows]))), n=200)
        held += low <= 0 <= high
    assert 51 <= held <= 60


def test_a_metric_without_a_value_is_one_line() -> None:
    """A metric that is not finite on some resample is refused with what to do, and so is one of no example."""
    undefined = Recomputed(3, lambda rows: 1.0 if len(np.unique(rows)) == 3 else float("nan"))
    with pytest.raises(BadInput, match=r"got nan; let it be finite on any examples: here \d of 3 are left"):
        bootstrap_interval(undefined)
    with pytest.raises(BadInput, match="got 'ZeroDivisionError: division by zero'; let it be finite"):
        Recomputed(3, lambda rows: 1 / 0).whole()
    with pytest.raises(BadInput, match="examples: got 0; give at least one"):
        Recomputed(0, lambda rows: 0.0)
