"""Fronts, areas and intervals, held against libraries, known values and their own coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from objective.errors import BadInput
from objective.pareto import REFERENCE, front, hypervolume, knee
from objective.stats import paired_bootstrap_difference, wilson_interval

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


def test_the_knee_is_between_the_ends() -> None:
    """The knee of a bent front is its bend; without points there is none."""
    assert knee([(0.0, 1.0), (0.01, 0.3), (0.1, 0.25)]) == 1
    assert knee([]) is None


def test_wilson_gives_known_values() -> None:
    """The Wilson interval equals published values, and stays inside [0, 1]."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe, Stat. Med. 1998, table I
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson_interval(20, 20)[1] == 1.0


def test_differences_over_the_same_examples() -> None:
    """A paired difference is the mean of differences, and its interval holds it; unequal lists are refused."""
    ours, theirs = np.ones(200), np.r_[np.zeros(20), np.ones(180)]
    mean, low, high = paired_bootstrap_difference(ours, theirs)
    assert mean == pytest.approx(0.1)
    assert 0.05 < low < mean < high < 0.15
    with pytest.raises(BadInput, match="theirs"):
        paired_bootstrap_difference(ours, theirs[1:])
