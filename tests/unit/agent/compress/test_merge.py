"""Many groups as few dimensions."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunefleet.agent.compress.groups import Group, specs
from prunefleet.agent.compress.merge import MergedSpace, merge
from prunefleet.objective.errors import BadInput
from prunefleet.objective.profiles.space import Space, snap


def group(root: str, width: int, multiple: int = 1) -> Group:
    return Group(root.replace(".", "_"), width, (root,), root, multiple)


BLOCKS = [
    group(f"layer{stage}.{block}.conv{part}", 64 << stage)
    for stage in (1, 2, 3)
    for block in range(4)
    for part in (1, 2)
]
GROUPS = st.lists(
    st.builds(
        group,
        st.builds("layer{}.{}.conv{}".format, st.integers(1, 4), st.integers(0, 9), st.integers(1, 3)),
        st.integers(2, 512),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda each: each.name,
)


def test_few_groups_stay_as_they_are() -> None:
    """Each is a dimension of its own name, and the searched space is the groups'."""
    dimensions = merge(BLOCKS)
    assert len(BLOCKS) == 24 and [each.groups for each in dimensions] == [(each.name,) for each in BLOCKS]
    spec = specs(BLOCKS, 8)
    assert MergedSpace(spec, dimensions=dimensions).searched == Space(spec)


def test_blocks_of_a_stage_are_merged_by_what_their_layers_do() -> None:
    """Six dimensions for three stages of four blocks with two layers each, named after their first group."""
    dimensions = merge(BLOCKS, most=6)
    assert [each.name for each in dimensions] == [
        f"layer{stage}_0_conv{part}_and_3_more" for stage in (1, 2, 3) for part in (1, 2)
    ]
    assert dimensions[0].groups == tuple(f"layer1_{block}_conv1" for block in range(4))


@given(GROUPS, st.integers(1, 24))
def test_every_group_is_in_exactly_one_dimension(groups: list[Group], most: int) -> None:
    """Whatever the groups, there are at most so many dimensions as allowed, in forward order, the same again."""
    dimensions = merge(groups, most)
    names = [name for each in dimensions for name in each.groups]
    place = {each.name: number for number, each in enumerate(groups)}
    assert len(dimensions) == min(most, len(groups)) and sorted(names) == sorted(place)
    assert all(list(each.groups) == sorted(each.groups, key=place.__getitem__) for each in dimensions)
    assert [place[each.groups[0]] for each in dimensions] == sorted(place[each.groups[0]] for each in dimensions)
    assert len({each.name for each in dimensions}) == len(dimensions)
    assert dimensions == merge(list(groups), most)


@given(GROUPS, st.integers(1, 6), st.sampled_from([1, 8, 16]), st.data())
def test_a_dimension_gives_each_of_its_groups_its_own_channels(
    groups: list[Group], most: int, step: int, data: st.DataObject
) -> None:
    """Its ratio is every group's, on that group's grid; groups of one width keep exactly what the dimension says."""
    space = MergedSpace(specs(groups, step), dimensions=merge(groups, most))
    searched = space.searched
    chosen = {spec.name: data.draw(st.sampled_from(searched.levels(spec.name))) for spec in searched.groups}
    ratios = searched.ratios(chosen)
    kept = space.kept(ratios)
    specs_by_name = {spec.name: spec for spec in space.groups}
    for dimension, like in zip(space.dimensions, searched.groups, strict=True):
        for name in dimension.groups:
            spec = specs_by_name[name]
            assert kept[name] == snap(ratios[dimension.name], spec.width, spec.step)
            if (spec.width, spec.step) == (like.width, like.step):
                assert kept[name] == chosen[dimension.name]
    assert space.kept(space.expand(ratios)) == kept


def test_a_group_can_still_be_named_by_itself_but_not_twice() -> None:
    """Ratios by group are understood beside those by dimension."""
    space = MergedSpace(specs(BLOCKS, 8), dimensions=merge(BLOCKS, most=6))
    assert space.kept({"layer1_2_conv1": 0.5})["layer1_2_conv1"] == 64
    with pytest.raises(BadInput, match=r"ratio\.layer1_2_conv1: got 0\.5; give layer1_2_conv1 one ratio"):
        space.kept({"layer1_0_conv1_and_3_more": 0.25, "layer1_2_conv1": 0.5})
    with pytest.raises(BadInput, match="name a layer group"):
        space.kept({"layer9": 0.5})
    assert set(space.parameters()["parameters"]) == {each.name for each in space.dimensions}


def test_no_dimension_at_all_is_refused() -> None:
    """At least one is needed."""
    with pytest.raises(BadInput, match="most: got 0"):
        merge(BLOCKS, 0)


@pytest.mark.parametrize(("proofs", "one"), [(["silence"] * 2, "silence"), (["silence", "influence"], "influence")])
def test_a_dimension_is_proven_as_its_groups_are(proofs: list[str], one: str) -> None:
    """By silence only where each of its groups is."""
    groups = [replace(each, proof=proof) for each, proof in zip(BLOCKS[:2], proofs, strict=True)]
    space = MergedSpace(specs(groups, 8), dimensions=merge(groups, most=1))
    assert [each.proof for each in space.searched.groups] == [one] and [each.proof for each in space.groups] == proofs
