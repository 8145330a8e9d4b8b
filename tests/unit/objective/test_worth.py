"""What each group of a profile is worth, in a word."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.objective.profiles.profile import Curve, Profile
from prunefleet.objective.profiles.space import GroupSpec
from prunefleet.objective.profiles.worth import CHEAP, DEAR, POINTLESS, worths


def _profile(*curves: tuple[tuple[float, float], tuple[float, float]]) -> Profile:
    """Groups of 32 channels measured at 8 and 16: (metric, latency ratio) for each; the dense metric is 0.9."""
    names = [f"g{place}" for place in range(len(curves))]
    made = [
        Curve(name, (8, 16, 32), (low[0], half[0], 0.9), (low[1], half[1], 1.0))
        for name, (low, half) in zip(names, curves, strict=True)
    ]
    groups = tuple(GroupSpec(name, 32, 8) for name in names)
    return Profile("t", "n", "b", "cpu", "f32", groups, "top1", 0.9, tuple(made))


def test_groups_are_named_by_what_they_lose_for_what_they_save() -> None:
    """Cheapest first, and last what saves nothing that could be told from noise, whatever it loses."""
    found = worths(_profile(((0.5, 0.7), (0.7, 0.8)), ((0.85, 0.6), (0.89, 0.8)), ((0.9, 0.98), (0.9, 0.99))))
    assert [(each.group, each.word) for each in found] == [("g1", CHEAP), ("g0", DEAR), ("g2", POINTLESS)]
    assert str(found[0]) == (
        "cheap: g1 at 16 of 32 channels loses 1.0 points before fine-tuning and saves 20.0% of the latency"
    )
    assert str(found[2]) == "pointless: g2 saves 2.0% of the latency at most"


def test_a_group_alone_is_cheap() -> None:
    """There is nothing to hold it against; a gain in the metric costs nothing."""
    (only,) = worths(_profile(((0.92, 0.5), (0.95, 0.6))))
    assert only.word == CHEAP and only.drop == pytest.approx(-0.05)
    assert "16 of 32 channels gains 5.0 points before fine-tuning and saves 40.0% of the latency" in str(only)
    (slower,) = worths(_profile(((0.92, 0.5), (0.8999, 1.02))))
    assert "loses 0.0 points before fine-tuning and adds 2.0% of the latency" in str(slower)


def test_a_group_that_was_measured_whole_alone_is_left_out() -> None:
    """As where a plan was broken off."""
    profile = _profile(((0.5, 0.5), (0.7, 0.6)))
    assert worths(replace(profile, curves=(Curve("g0", (32,), (0.9,), (1.0,)),))) == ()


POINT = st.tuples(st.floats(0, 1), st.floats(0.05, 1.5))


@given(st.lists(st.tuples(POINT, POINT), min_size=1, max_size=8))
def test_every_group_has_one_word(curves: list[tuple[tuple[float, float], tuple[float, float]]]) -> None:
    """Each is there once; unless all are pointless some are cheap, and no dear one comes before a cheap one."""
    found = worths(_profile(*curves))
    words = [each.word for each in found]
    assert sorted(each.group for each in found) == sorted(f"g{place}" for place in range(len(curves)))
    assert words == sorted(words, key=(CHEAP, DEAR, POINTLESS).index)
    assert CHEAP in words or set(words) == {POINTLESS}
