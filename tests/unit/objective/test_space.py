"""The channel grid: ratios to kept channels and back."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.objective.errors import BadInput
from prunefleet.objective.profiles.space import GroupSpec, Space, levels, ratio_of, snap

widths, steps = st.integers(1, 600), st.sampled_from([1, 4, 8, 16, 32])
DEMO = Space(tuple(GroupSpec(f"g{n}", width, 16) for n, width in enumerate((32, 64, 64, 128, 128, 128))))


@given(st.floats(0, 1, exclude_max=True), widths, steps)
def test_kept_channels_are_on_the_grid(ratio: float, width: int, step: int) -> None:
    """What is kept is a multiple of the step or the whole width, never 0 and never more than there are."""
    kept = snap(ratio, width, step)
    assert 1 <= kept <= width
    assert kept % step == 0 or kept == width


@given(widths, steps)
def test_a_ratio_of_zero_keeps_all(width: int, step: int) -> None:
    """Nothing is pruned by a ratio of 0, whatever the grid."""
    assert snap(0.0, width, step) == width


@given(widths, steps, st.data())
def test_kept_to_ratio_and_back(width: int, step: int, data: st.DataObject) -> None:
    """Every level of the grid survives being written as a ratio."""
    kept = data.draw(st.sampled_from(levels(GroupSpec("g", width, step))))
    assert snap(ratio_of(kept, width), width, step) == kept


def test_the_ladder_is_uniform_aligned_and_distinct() -> None:
    """The uniform ladder starts dense and only ever removes channels, each rung once."""
    ladder = DEMO.uniform_ladder()
    assert ladder[0] == DEMO.widths
    assert len({tuple(rung.values()) for rung in ladder}) == len(ladder)
    for above, below in pairwise(ladder):
        assert all(above[name] >= below[name] for name in above)
        assert all(count % 16 == 0 for count in below.values())


def test_the_parameters_block_reads_back() -> None:
    """The sweep file's ratio block gives the space that it was written from."""
    block = DEMO.parameters()
    again = Space.from_parameters(block, DEMO.widths, 16)
    assert [again.levels(g.name) for g in again.groups] == [DEMO.levels(g.name) for g in DEMO.groups]


@pytest.mark.parametrize(
    ("ratios", "line"),
    [
        ({"g0": 1.0}, "ratio.g0: got 1.0"),
        ({"g0": -0.1}, "ratio.g0: got -0.1"),
        ({"g0": float("nan")}, "ratio.g0: got nan"),
        ({"g9": 0.5}, "ratio.g9: got 'g9'; name a layer group: g0, g1"),
        ({"g0": "half"}, "ratio.g0: got 'half'"),
    ],
)
def test_wrong_ratios_are_refused(ratios: dict[str, float], line: str) -> None:
    """A ratio outside [0, 1) or for an unknown group is refused by name."""
    with pytest.raises(BadInput) as caught:
        DEMO.kept(ratios)
    assert line in str(caught.value)
