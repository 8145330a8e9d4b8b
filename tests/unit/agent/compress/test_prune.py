"""Coupled groups, and pruning them to exact widths."""

import gc
import inspect
import weakref
from functools import partial

import pytest
import torch
import torch_pruning as tp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prunefleet.agent.compress.cut import width
from prunefleet.agent.compress.groups import Group, find_groups, specs
from prunefleet.agent.compress.prune import count_macs, prune, shrink
from prunefleet.agent.tasks.networks.resnet import ResNet9
from prunefleet.objective.errors import BadInput

from support.networks import Residual, Shuffled, Stretched, channels_of

IMAGE = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
WIDTHS = st.integers(2, 96)


def plain(*layers: nn.Module) -> nn.Sequential:
    """Layers between an image and four classes."""
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(4)).eval()
    network(IMAGE)
    return network


def test_groups_are_named_after_their_first_convolution_in_forward_order() -> None:
    """One group per stream and per block's inner width; dots become underscores; the classifier is left out."""
    groups = find_groups(Residual(16, (8, 24)), IMAGE)
    assert [(group.name, group.width) for group in groups] == [("stem", 16), ("down_0", 8), ("down_1", 24)]
    assert groups[0].members == ("stem", "up.0", "up.1")
    assert groups == find_groups(Residual(16, (8, 24)), IMAGE)


def test_a_depthwise_convolution_does_not_name_its_group() -> None:
    """The expanding convolution does, though DepGraph may report the depthwise one as root."""
    depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
    groups = find_groups(plain(nn.Conv2d(1, 12, 1), depthwise, nn.Conv2d(12, 6, 1)), IMAGE)
    assert [(group.name, group.members) for group in groups] == [("0", ("0", "1")), ("2", ("2",))]


def test_names_that_become_equal_are_numbered() -> None:
    """`a.b` and `a_b` are two groups."""
    network = nn.Sequential()
    network.add_module("a", nn.Sequential())
    network.a.add_module("b", nn.Conv2d(1, 4, 1))
    network.add_module("a_b", nn.Conv2d(4, 6, 1))
    network.add_module("end", nn.Conv2d(6, 2, 1))
    assert [group.name for group in find_groups(network, IMAGE)] == ["a_b", "a_b_2"]


def test_a_convolutional_head_and_several_outputs_are_left_whole() -> None:
    """What the network returns keeps its channels, whatever layer makes it."""

    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.one, self.two = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 5, 1), nn.Conv2d(8, 7, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.body(x)
            return torch.sigmoid(self.one(y)), self.two(y)

    assert [group.name for group in find_groups(TwoHeads(), IMAGE)] == ["body"]


def test_ignored_modules_stay_whole() -> None:
    """A module named as ignored takes its whole group, or all layers inside it, out of the search."""
    network = Residual(16, (8, 24))
    assert [group.name for group in find_groups(network, IMAGE, ignored=["up.1"])] == ["down_0", "down_1"]
    assert [group.name for group in find_groups(network, IMAGE, ignored=["down"])] == ["stem"]
    with pytest.raises(BadInput, match="ignored: got 'dwon'"):
        find_groups(network, IMAGE, ignored=["dwon"])


def test_finding_groups_leaves_the_network_as_it_was() -> None:
    """Weights, statistics, modes and gradient flags are untouched."""
    network = Residual(8, (4,)).train()
    network.stem.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    find_groups(network, IMAGE)
    assert network.training and network.norm.training and not network.stem.weight.requires_grad
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_a_network_with_nothing_to_prune_is_named() -> None:
    """A classifier alone has no group."""
    with pytest.raises(BadInput, match=r"network: got '1'; .*nothing to prune"):
        find_groups(nn.Sequential(nn.Flatten(), nn.Linear(144, 4)), IMAGE)


def test_a_network_that_does_not_run_is_named_by_layer() -> None:
    """The innermost layer that failed, and the input's shape."""
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Sequential(nn.Conv2d(9, 8, 3)))
    with pytest.raises(BadInput, match=r"network: got '1\.0'; make it run on an input of shape \(1, 1, 12, 12\)"):
        find_groups(network, IMAGE)


def test_a_shuffle_that_traces_is_pruned_or_refused_but_never_wrong() -> None:
    """Pruning a network with a fixed reshape either gives the channels asked for or names what stands in the way."""
    network = Shuffled()
    try:
        groups = find_groups(network, IMAGE)
        pruned = prune(network, IMAGE, groups, {groups[0].name: 4})
    except BadInput as refusal:
        assert "network" in refusal.field
    else:
        assert pruned.network(IMAGE).shape == (1, 3)


@settings(max_examples=25, deadline=None)
@given(WIDTHS, st.lists(WIDTHS, max_size=2), st.lists(WIDTHS, max_size=2), st.data())
def test_kept_channels_are_exactly_those_asked_for(
    stream: int, inner: list[int], concat: list[int], data: st.DataObject
) -> None:
    """In residual and concatenating networks of any widths, each group has what was asked, and the network runs."""
    network = Residual(stream, inner, concat)
    groups = find_groups(network, IMAGE)
    kept = {group.name: data.draw(st.integers(1, group.width)) for group in groups}
    pruned = prune(network, IMAGE, groups, kept)
    assert pruned.kept == kept == channels_of(pruned.network, groups)
    assert pruned.network(IMAGE).shape == network(IMAGE).shape
    assert pruned.params == sum(parameter.numel() for parameter in pruned.network.parameters())
    for group in groups:
        assert {width(pruned.network.get_submodule(member), out=True) for member in group.members} == {kept[group.name]}


@pytest.mark.parametrize("width", [16, 48, 96, 192, 240])
def test_no_channel_is_lost_to_float_error(width: int) -> None:
    """48 → 16, 96 → 32 and all others come out whole, where 1 - keep / C as a ratio loses one channel of some."""
    network = plain(nn.Conv2d(1, width, 1))
    groups = find_groups(network, IMAGE)
    for keep in range(1, width + 1):
        ratio = 1 - (keep + 0.5) / width
        assert int(width * (1 - ratio)) == keep
    for keep in {1, width // 3, width // 2, width - 1}:
        assert prune(network, IMAGE, groups, {"0": keep}).kept == {"0": keep}


def test_the_float_trap_is_real() -> None:
    """Given 1 - 16 / 48, Torch-Pruning keeps 15: the reason for half a channel of slack."""
    network = plain(nn.Conv2d(1, 48, 1))
    options = {"pruning_ratio": 0.0, "pruning_ratio_dict": {network[0]: 1 - 16 / 48}, "ignored_layers": [network[3]]}
    fresh = {name: {} for name in ("in_channel_groups", "out_channel_groups", "num_heads", "channel_groups")}
    tp.pruner.BasePruner(network, IMAGE, importance=tp.importance.MagnitudeImportance(), **options, **fresh).step()
    assert network[0].out_channels == 15


def test_groups_not_named_stay_whole() -> None:
    """Torch-Pruning's default would halve them."""
    network = Residual(16, (8, 24))
    pruned = prune(network, IMAGE, find_groups(network, IMAGE), {"down_1": 6})
    left = channels_of(pruned.network, find_groups(network, IMAGE))
    assert pruned.kept == {"stem": 16, "down_0": 8, "down_1": 6} == left


def test_a_harsh_ratio_on_a_narrow_group_is_still_pruned() -> None:
    """With round_to=8, keeping 4 of 16 floors to 0 and silently keeps all 16: kept counts are asked for directly."""
    network = plain(nn.Conv2d(1, 16, 1), nn.Conv2d(16, 32, 1))
    assert prune(network, IMAGE, find_groups(network, IMAGE), {"0": 3, "1": 7}).kept == {"0": 3, "1": 7}


def test_pruners_share_no_state_and_let_networks_go() -> None:
    """Torch-Pruning's mutable default dictionaries would keep every grouped network alive for ever."""
    network = plain(nn.Conv2d(1, 16, 1), nn.Conv2d(16, 32, 3, groups=4))
    groups = find_groups(network, IMAGE)
    pruned = prune(network, IMAGE, groups, {group.name: group.width // 2 for group in groups})
    alive = weakref.ref(pruned.network[1])
    del pruned
    gc.collect()
    assert alive() is None
    defaults = inspect.signature(tp.pruner.BasePruner.__init__).parameters
    assert all(defaults[name].default == {} for name in ("in_channel_groups", "out_channel_groups"))


def alive() -> tuple[int, int]:
    """Modules and tensors that this process holds."""
    gc.collect()
    things = gc.get_objects()
    return sum(isinstance(one, nn.Module) for one in things), sum(isinstance(one, torch.Tensor) for one in things)


# Sixty in `make test`.
@pytest.mark.parametrize("prunes", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_many_prunes_leave_nothing_behind(prunes: int) -> None:
    """Modules and tensors in memory stay as many as after the first; Torch-Pruning's own pruner would keep some."""
    network = plain(nn.Conv2d(1, 16, 1), nn.BatchNorm2d(16), nn.Conv2d(16, 24, 3, groups=4))
    groups = find_groups(network, IMAGE)
    counts = []
    for turn in range(prunes):
        kept = {group.name: group.multiple * (1 + turn % 3) for group in groups}
        prune(network, IMAGE, groups if turn % 20 else find_groups(network, IMAGE), kept, "random", seed=turn)
        if turn in (0, prunes // 2, prunes - 1):
            counts.append(alive())
    assert counts[0] == counts[1] == counts[2]


def test_grouped_convolutions_keep_whole_parts() -> None:
    """Beside a convolution of 4 groups multiples of 4 are kept, others refused, and the grid is made of them."""
    network = plain(nn.Conv2d(1, 16, 1), nn.Conv2d(16, 24, 3, groups=4))
    groups = find_groups(network, IMAGE)
    assert [(group.width, group.multiple) for group in groups] == [(16, 4), (24, 4)]
    for keep in (4, 8, 12):
        assert prune(network, IMAGE, groups, {"0": keep, "1": keep}).kept == {"0": keep, "1": keep}
    with pytest.raises(BadInput, match=r"kept\.0: got 6; keep 1 to 16 channels in multiples of 4"):
        prune(network, IMAGE, groups, {"0": 6})
    assert [spec.step for spec in specs(groups, 6)] == [12, 12]


def test_the_grid_is_halved_until_a_narrow_network_has_choices() -> None:
    """Sixteen channels on a grid of 16 leave nothing to search: the grid becomes 8."""
    narrow, wide = Group("a", 16, ("a",), "a"), Group("b", 40, ("b",), "b")
    assert [spec.step for spec in specs([narrow], 16)] == [8]
    assert [spec.step for spec in specs([narrow, wide], 16)] == [16, 16]


def test_channels_of_least_norm_go() -> None:
    """Group L2 keeps the channels whose weights are large."""
    network = plain(nn.Conv2d(1, 6, 1, bias=False))
    with torch.no_grad():
        network[3].weight.fill_(1)
        network[0].weight.copy_(torch.tensor([5.0, 0.1, 4.0, 0.2, 3.0, 0.3]).view(6, 1, 1, 1))
    kept = prune(network, IMAGE, find_groups(network, IMAGE), {"0": 3}).network[0].weight.flatten()
    assert kept.tolist() == [5.0, 4.0, 3.0]


def test_random_importance_follows_its_seed() -> None:
    """The same seed prunes the same channels and leaves torch's own generator alone."""
    network = Residual(16, (8,))
    make = partial(prune, network, IMAGE, find_groups(network, IMAGE), {"stem": 5}, "random")
    state = torch.get_rng_state()
    first, again, other = (make(seed=seed).network.stem.weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_the_original_is_untouched_and_flags_are_carried_over() -> None:
    """Pruning copies; training mode and frozen parameters are those of the original."""
    network = Residual(16, (8,)).train()
    network.norm.requires_grad_(False)
    pruned = prune(network, IMAGE, find_groups(network, IMAGE), {"stem": 4}).network
    assert network.stem.out_channels == 16 and pruned.stem.out_channels == 4
    assert pruned.training and pruned.norm.training
    assert not pruned.norm.weight.requires_grad and pruned.stem.weight.requires_grad


def test_saved_weights_load_into_a_shrunken_network() -> None:
    """`shrink` gives the shapes of `prune`, so weights travel without a pickled module."""
    network = Residual(16, (8, 24), (6, 10))
    groups = find_groups(network, IMAGE)
    kept = {"stem": 5, "down_1": 9, "branches_0": 3}
    pruned = prune(network, IMAGE, groups, kept, importance="random", seed=3).network
    rebuilt = shrink(Residual(16, (8, 24), (6, 10)), IMAGE, groups, kept)
    rebuilt.load_state_dict(pruned.state_dict())
    assert torch.equal(rebuilt.eval()(IMAGE), pruned.eval()(IMAGE))


@pytest.mark.parametrize(
    ("kept", "line"), [({"stem": 0}, "keep 1 to 16"), ({"stem": 17}, "keep 1 to 16"), ({"no": 4}, "name a group")]
)
def test_impossible_counts_are_refused(kept: dict[str, int], line: str) -> None:
    """In one line with the field and what would be right."""
    network = Residual(16, (8,))
    with pytest.raises(BadInput, match=line):
        prune(network, IMAGE, find_groups(network, IMAGE), kept)


def test_a_forward_pass_with_fixed_channels_is_refused_by_layer() -> None:
    """A view that spells out the channels breaks when they are pruned; the line says where."""

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.head(self.conv(x).mean((2, 3)).view(-1, 8))
            return y

    with pytest.raises(BadInput, match="network: got"):
        network = Fixed()
        prune(network, IMAGE, find_groups(network, IMAGE), {"conv": 4})


def test_macs_of_own_layer_classes_count() -> None:
    """Torch-Pruning's counter leaves out subclasses of convolutions; ours counts what runs."""
    ordinary, own = nn.Conv2d(1, 4, 3), Stretched(1, 4, 3)
    assert count_macs(own, IMAGE) == count_macs(ordinary, IMAGE) == 4 * 9 * 10 * 10


class Mixed(nn.Module):
    """Operations of every kind that multiplies: modules', functions', fused and composed ones."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.depthwise = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
        self.up, self.line = nn.ConvTranspose2d(8, 4, 2), nn.Conv1d(4, 6, 3)
        self.attention, self.head = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.line(self.up(self.depthwise(self.conv(x))).flatten(2)).transpose(1, 2)
        y = self.attention(y, y, y, need_weights=False)[0]
        y = torch.einsum("bij,bkj->bik", y, y) @ nn.functional.scaled_dot_product_attention(y, y, y)
        found: torch.Tensor = self.head(y)
        return found


@pytest.mark.parametrize("network", [Mixed(), ResNet9()], ids=["mixed", "resnet9"])
def test_macs_are_those_of_torchs_own_counter(network: nn.Module) -> None:
    """Whatever multiplies counts as in torch's FlopCounterMode."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(IMAGE)
    assert count_macs(network, IMAGE) == counter.get_total_flops() // 2 > 0


def test_an_unknown_importance_is_refused() -> None:
    """With the ones there are."""
    network = Residual(16, (8,))
    with pytest.raises(BadInput, match="importance: got 'best'; choose one of l2, l1, fpgm, bn_scale, taylor, random"):
        prune(network, IMAGE, find_groups(network, IMAGE), {"stem": 4}, importance="best")
