"""Ways in which layers are joined: each is pruned exactly, or the layer and the reason are named."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm
from torch.nn.utils import prune as masks

from prunefleet.agent.compress.arrange import pruned_copy_of
from prunefleet.agent.compress.fold import copied, folded
from prunefleet.agent.compress.groups import Group, find_groups, remove, survey
from prunefleet.agent.compress.prune import prune
from prunefleet.objective.errors import BadInput

from support.networks import channels_of
from support.zoo import difference, mixes, muted, random_gone, random_kept

IMAGE = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Layers by name, and a function that says how they are joined; four classes at the end."""

    def __init__(self, join: Callable[..., torch.Tensor], features: int = 16, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.join, self.head = join, nn.Linear(features, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.join(self, x).flatten(2).mean(2))
        return logits


def conv(inputs: int, outputs: int, groups: int = 1, kernel: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, **options)


def transposed(inputs: int, outputs: int, groups: int = 1) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 2, stride=2, groups=groups)


def tied_halves(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A gated linear unit: each channel of one half is multiplied by one of the other."""
    a, b = net.wide(x).chunk(2, 1)
    return net.last(a * torch.sigmoid(b))


def free_halves(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Two halves with layers of their own: the code divides by two, so both must lose as much."""
    a, b = net.wide(x).chunk(2, 1)
    return net.left(a) + net.right(b).tanh()


def uneven_parts(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    a, b = net.wide(x).split([4, 8], 1)
    return net.left(a) + net.right(b)


def attend(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    tokens = net.a(x).flatten(2).transpose(1, 2)
    return net.att(tokens, tokens, tokens)[0].transpose(1, 2)


def dense_block(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    first = torch.relu(net.first(x))
    second = torch.relu(net.norm(torch.cat([first, net.second(first)], 1)))
    return net.last(torch.cat([second, net.third(second)], 1))


def backwards(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = net.a(x)
    return net.b(y[:, torch.arange(y.shape[1] - 1, -1, -1)])


def paths(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A selective kernel: a softmax over two paths weighs each channel."""
    both = torch.relu(net.a(x)).reshape(len(x), 2, -1, 12, 12)
    shares = net.gate(both.sum(1).mean((2, 3))).reshape(len(x), 2, -1).softmax(1)
    return net.b((both * shares[..., None, None]).sum(1))


def halved(y: torch.Tensor) -> torch.Tensor:
    return y[:, : y.shape[1] // 2]


def old_weight_norm(layer: nn.Module) -> nn.Module:
    """Return the layer with torch's weight norm of before parametrisations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return weight_norm(layer)


def cross_stage(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """One half goes through another convolution, and both meet it again in a concatenation."""
    a, b = torch.relu(net.wide(x)).chunk(2, 1)
    return net.last(torch.cat([a, b, net.inner(b)], 1))


def along_space(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Coordinate attention: rows and columns are one image for a while."""
    y = torch.relu(net.a(x))
    both = torch.cat([y.mean(3, keepdim=True), y.mean(2, keepdim=True).transpose(2, 3)], 2)
    rows, columns = torch.relu(net.squeeze(both)).split([12, 12], 2)
    return net.b(y * torch.sigmoid(net.gate(rows)) * torch.sigmoid(net.gate(columns.transpose(2, 3))))


def recurrent(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A convolution's columns, read from left to right."""
    columns = torch.relu(net.b(torch.relu(net.a(x)))).mean(2).transpose(1, 2)
    return net.gru(columns)[0].transpose(1, 2)


def normed(norm: Callable[..., nn.Module]) -> Net:
    """A convolution whose weights something else computes."""
    return Net(lambda net, x: net.b(torch.relu(net.a(x))), a=norm(conv(3, 12)), b=conv(12, 16))


NETWORKS = {
    "chain": Net(lambda net, x: net.b(torch.relu(net.a(x))), a=conv(3, 12), b=conv(12, 16)),
    "concatenation": Net(
        lambda net, x: net.last(torch.cat([net.a(x), net.b(x), net.a(x)], 1)),
        a=conv(3, 6),
        b=conv(3, 10),
        last=conv(22, 16),
    ),
    "concatenation with the image": Net(
        lambda net, x: net.last(torch.cat([x, net.a(x)], 1)), a=conv(3, 9), last=conv(12, 16)
    ),
    "dense block": Net(
        dense_block, first=conv(3, 8), second=conv(8, 6), norm=nn.BatchNorm2d(14), third=conv(14, 5), last=conv(19, 16)
    ),
    "sum of a concatenation": Net(
        lambda net, x: net.last(torch.cat([net.a(x), net.b(x)], 1) + net.c(x)),
        a=conv(3, 6),
        b=conv(3, 8),
        c=conv(3, 14),
        last=conv(14, 16),
    ),
    "gated halves": Net(tied_halves, wide=conv(3, 20), last=conv(10, 16)),
    "free halves": Net(free_halves, wide=conv(3, 20), left=conv(10, 16), right=conv(10, 16)),
    "shared layer": Net(lambda net, x: net.twice(torch.relu(net.twice(net.a(x)))), a=conv(3, 16), twice=conv(16, 16)),
    "grouped": Net(
        lambda net, x: net.last(net.b(net.a(x))), a=conv(3, 16), b=conv(16, 24, groups=4), last=conv(24, 16)
    ),
    "grouped behind a concatenation": Net(
        lambda net, x: net.last(net.b(torch.cat([net.a(x), net.c(x)], 1))),
        a=conv(3, 8),
        c=conv(3, 8),
        b=conv(16, 8, groups=2),
        last=conv(8, 16),
    ),
    "two kinds of groups": Net(
        lambda net, x: net.b(net.a(x)) + net.c(net.a(x)),
        a=conv(3, 24),
        b=conv(24, 16, groups=4),
        c=conv(24, 16, groups=2),
    ),
    "depthwise": Net(lambda net, x: net.b(net.dw(net.a(x))), a=conv(3, 12), dw=conv(12, 12, groups=12), b=conv(12, 16)),
    "transposed": Net(
        lambda net, x: net.b(torch.relu(net.up(net.a(x)))), a=conv(3, 12), up=transposed(12, 10), b=conv(10, 16)
    ),
    "grouped transposed": Net(
        lambda net, x: net.b(net.up(net.a(x))), a=conv(3, 12), up=transposed(12, 8, groups=4), b=conv(8, 16)
    ),
    "depthwise transposed": Net(
        lambda net, x: net.b(net.up(net.a(x))), a=conv(3, 12), up=transposed(12, 12, groups=12), b=conv(12, 16)
    ),
    "one dimension": Net(lambda net, x: net.b(net.a(x.flatten(2))), a=nn.Conv1d(3, 9, 3), b=nn.Conv1d(9, 16, 1)),
    "norms": Net(
        lambda net, x: net.b(net.p(net.i(net.n(net.a(x))))),
        a=conv(3, 12),
        n=nn.BatchNorm2d(12),
        i=nn.InstanceNorm2d(12, affine=True),
        p=nn.PReLU(12),
        b=conv(12, 16),
    ),
    "one slope for all": Net(lambda net, x: net.b(net.p(net.a(x))), a=conv(3, 12), p=nn.PReLU(), b=conv(12, 16)),
    "group norm": Net(lambda net, x: net.b(net.n(net.a(x))), a=conv(3, 12), n=nn.GroupNorm(3, 12), b=conv(12, 16)),
    "several filters per channel": Net(
        lambda net, x: net.last(net.dw(net.a(x))), a=conv(3, 8), dw=conv(8, 16, groups=8), last=conv(16, 16)
    ),
    "several channels per filter": Net(
        lambda net, x: net.last(net.dw(net.a(x))), a=conv(3, 16), dw=conv(16, 8, groups=8), last=conv(8, 16)
    ),
    "coordinates": Net(
        lambda net, x: net.last(torch.cat([torch.ones(len(x), 2, 12, 12), net.a(x)], 1)),
        a=conv(3, 8),
        last=conv(10, 16),
    ),
    "attention": Net(attend, a=conv(3, 16), att=nn.MultiheadAttention(16, 4, batch_first=True)),
    "rolled": Net(lambda net, x: net.b(torch.relu(net.a(x)).roll(3, 1)), a=conv(3, 12), b=conv(12, 16)),
    "an index": Net(backwards, a=conv(3, 12), b=conv(12, 16)),
    "shuffled": Net(
        lambda net, x: net.b(nn.functional.channel_shuffle(net.a(x), 3)), a=conv(3, 12), b=conv(12, 16, groups=2)
    ),
    "larger of two": Net(
        lambda net, x: net.b(net.a(x).view(len(x), 2, -1, 12, 12).amax(1)), a=conv(3, 24), b=conv(12, 16)
    ),
    "half by size": Net(lambda net, x: net.b(halved(net.a(x))), a=conv(3, 24), b=conv(12, 16)),
    "cross stage": Net(cross_stage, wide=conv(3, 16), inner=conv(8, 8), last=conv(24, 16)),
    "norm of one place": Net(
        lambda net, x: net.norm(net.a(x).mean((2, 3), keepdim=True).permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
        a=conv(3, 16),
        norm=nn.LayerNorm(16),
    ),
    "along space": Net(
        along_space, a=conv(3, 16), squeeze=conv(16, 8, kernel=1), gate=conv(8, 16, kernel=1), b=conv(16, 16)
    ),
    "recurrent": Net(recurrent, a=conv(3, 8), b=conv(8, 12), gru=nn.GRU(12, 16, batch_first=True)),
    "weight norm": normed(parametrizations.weight_norm),
    "spectral norm": normed(parametrizations.spectral_norm),
    "orthogonal": normed(parametrizations.orthogonal),
    "old weight norm": normed(old_weight_norm),
    "masked": normed(lambda layer: masks.l1_unstructured(layer, "weight", amount=0.3)),
    "paths": Net(paths, a=conv(3, 24), gate=nn.Linear(12, 24), b=conv(12, 16)),
    "flattened": nn.Sequential(
        conv(3, 6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 144, 20), nn.ReLU(), nn.Linear(20, 4)
    ),
}


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("name", NETWORKS)
def test_joined_layers_keep_exactly_what_is_asked(name: str, ratio: float) -> None:
    """Every group has the channels asked for, and none but the layers of the output stay whole."""
    network = NETWORKS[name]
    found = survey(network, IMAGE)
    kept = random_kept(found.groups, ratio, seed=3)
    pruned = prune(network, IMAGE, found.groups, kept, importance="random")
    assert pruned.kept == kept == channels_of(pruned.network, found.groups)
    assert set(found.whole.values()) <= {"it makes the network's output"}
    pruned.network(torch.cat([IMAGE, IMAGE])).sum().backward()
    assert all(parameter.grad is not None for parameter in pruned.network.parameters())


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("group norm", "norm of one place")])
def test_joined_layers_lose_the_channels_that_belong_together(name: str) -> None:
    """What is left computes what the whole computes when the removed channels are silent."""
    network = folded(copied(NETWORKS[name])).eval()
    groups = find_groups(network, IMAGE)
    assert not mixes(groups, network)  # in a norm over channels removing is more than silencing
    gone, smaller = random_gone(groups, 0.5, seed=1), copy.deepcopy(network)
    pruned_copy_of(network, smaller, groups, gone, IMAGE)
    assert difference(muted(network, groups, gone), smaller, IMAGE) < 1e-5


def group_of(name: str) -> dict[str, Group]:
    return {group.name: group for group in find_groups(NETWORKS[name], IMAGE)}


def test_halves_that_are_divided_in_code_lose_alike() -> None:
    """Behind a chunk into two, multiples of two are kept, whether or not the halves are joined again."""
    for name in ("gated halves", "free halves"):
        assert group_of(name)["wide"].multiple == 2
        with pytest.raises(BadInput, match="in multiples of 2"):
            prune(NETWORKS[name], IMAGE, tuple(group_of(name).values()), {"wide": 5})


def test_a_grouped_layer_behind_a_concatenation_joins_what_it_reads() -> None:
    """Both halves of what a convolution of two groups reads are one group: its parts stay equal."""
    found = group_of("grouped behind a concatenation")
    assert found["a"].members == ("a", "c") and "c" not in found


def test_parts_of_two_sizes_keep_multiples_of_both() -> None:
    """Torch-Pruning goes by the larger number of groups alone."""
    assert group_of("two kinds of groups")["a"].multiple == 4


def test_layer_norm_keeps_its_own_scales() -> None:
    """Torch-Pruning takes them from an unordered set: few channels of many come out in another order."""
    network = Net(
        lambda net, x: net.b(net.norm(net.a(x).movedim(1, 3)).movedim(3, 1)),
        a=conv(3, 100),
        norm=nn.LayerNorm(100),
        b=conv(100, 16),
    )
    with torch.no_grad():
        network.norm.weight.copy_(torch.arange(100.0))
    groups = [group for group in find_groups(network, IMAGE) if group.name == "a"]
    remove(network, groups, {"a": set(range(90))})
    assert network.norm.weight.tolist() == [*range(90, 100)]
    network(IMAGE)


REFUSED = {
    "added to the image": (
        Net(lambda net, x: net.last(x + net.a(x)), a=conv(3, 3), last=conv(3, 16)),
        "a",
        "added to the network's input",
    ),
    "split by number": (
        Net(uneven_parts, wide=conv(3, 12), left=conv(4, 16), right=conv(8, 16)),
        "wide",
        "split into unequal parts",
    ),
    "halved by number": (
        Net(lambda net, x: net.last(net.wide(x)[:, :6] + net.wide(x)[:, 6:]), wide=conv(3, 12), last=conv(6, 16)),
        "wide",
        "breaks",
    ),
    "viewed by number": (
        Net(lambda net, x: net.last(net.wide(x).view(1, 2, 6, 12, 12).sum(1)), wide=conv(3, 12), last=conv(6, 16)),
        "wide",
        "breaks",
    ),
    "never used": (Net(lambda net, x: net.a(x), a=conv(3, 16), idle=conv(3, 8)), "idle", "does not use it"),
    "a single channel": (Net(lambda net, x: net.b(x) * net.a(x), a=conv(3, 1), b=conv(3, 16)), "a", "one channel"),
    "a single channel first": (
        Net(lambda net, x: net.a(x) * net.b(x), a=conv(3, 1), b=conv(3, 16)),
        "a",
        "one channel",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_pruned_is_named_with_its_reason(name: str) -> None:
    """And the rest of the network is pruned all the same; nothing is left whole in silence."""
    network, layer, reason = REFUSED[name]
    try:
        found = survey(network, IMAGE)
    except BadInput as error:
        assert layer in str(error) and reason in error.remedy
        return
    assert reason in found.whole[layer]
    kept = random_kept(found.groups, 0.5)
    assert prune(network, IMAGE, found.groups, kept).kept == kept


def test_every_layer_is_in_a_group_or_has_a_reason() -> None:
    """For all networks here: convolutions and linear layers are accounted for."""
    for network in (*NETWORKS.values(), *(each[0] for each in REFUSED.values())):
        try:
            found = survey(network, IMAGE)
        except BadInput:
            continue
        members = {member for group in found.groups for member in group.members}
        plain = folded(copied(network))
        layers = {name for name, each in plain.named_modules() if isinstance(each, nn.Linear | nn.modules.conv._ConvNd)}
        assert members | set(found.whole) == layers


def test_heads_for_training_alone_are_pruned_too() -> None:
    """An auxiliary head that runs in training only still fits after pruning, and its own inner layer is a group."""

    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.more = nn.Sequential(conv(3, 12), nn.BatchNorm2d(12)), nn.Sequential(conv(12, 10))
            self.head, self.aux = nn.Linear(10, 4), nn.Sequential(conv(12, 8), nn.Dropout(), conv(8, 4))

        def forward(self, x: torch.Tensor) -> object:
            y = self.body(x)
            logits = self.head(self.more(y).mean((2, 3)))
            return (logits, self.aux(y).mean((2, 3))) if self.training else logits

    network = Auxiliary()
    found = survey(network, IMAGE)
    assert [group.name for group in found.groups] == ["body_0", "more_0", "aux_0"]
    assert set(found.whole) == {"head", "aux.2"}
    pruned = prune(network, IMAGE, found.groups, {"body_0": 5, "more_0": 3, "aux_0": 2}).network
    logits, aux = pruned.train()(torch.cat([IMAGE, IMAGE]))
    assert logits.shape == aux.shape == (2, 4)
    assert pruned.eval()(IMAGE).shape == (1, 4)


def test_norms_with_an_activation_inside_keep_their_statistics() -> None:
    """timm's norms have parts: looking at a network, and pruning it, must not let them learn from the example."""

    class NormAct(nn.BatchNorm2d):
        def __init__(self, channels: int) -> None:
            super().__init__(channels)
            self.act = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.act(super().forward(x))
            return y

    network = nn.Sequential(conv(3, 8), NormAct(8), nn.Flatten(), nn.Linear(8 * 144, 4))
    network[1].running_mean.copy_(torch.arange(8.0))
    pruned = prune(network, IMAGE, find_groups(network, IMAGE), {"0": 5}, "random").network
    assert network[1].running_mean.tolist() == [*range(8)]
    assert len(pruned[1].running_mean) == 5 and set(pruned[1].running_mean.tolist()) <= set(range(8))


def test_an_output_that_is_used_further_stays_whole() -> None:
    """Features that a network returns beside its logits keep their channels."""

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = conv(3, 8), conv(8, 12), nn.Linear(12, 4)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            y = torch.relu(self.first(x))
            return {"logits": self.head(self.second(y).mean((2, 3))), "features": y}

    found = survey(Features(), IMAGE)
    assert [group.name for group in found.groups] == ["second"] and set(found.whole) == {"first", "head"}


def test_the_image_of_the_example_is_left_alone() -> None:
    """Finding groups gives the caller's tensor no gradient."""
    image = IMAGE.clone()
    find_groups(NETWORKS["chain"], image)
    assert image.grad is None and not image.requires_grad


def test_a_network_that_is_not_steady_is_refused_by_its_output() -> None:
    """One line for values that are not finite, and for a forward pass that draws at random."""
    broken = Net(lambda net, x: net.a(x) / 0, a=conv(3, 16))
    with pytest.raises(BadInput, match=r"output 0.*not finite"):
        survey(broken, IMAGE)
    random = Net(lambda net, x: net.a(x) + torch.rand(1), a=conv(3, 16))
    with pytest.raises(BadInput, match=r"output 0.*differs from call to call"):
        survey(random, IMAGE)


@pytest.mark.parametrize("name", ["weight norm", "old weight norm", "masked"])
def test_what_is_attached_to_weights_stays_on_the_network_that_was_given(name: str) -> None:
    """It is folded in a copy alone: the network still computes its weights, and as before."""
    network = copied(NETWORKS[name]).eval()
    before = network(IMAGE)
    names = [each for each, _ in network.named_parameters()]
    prune(network, IMAGE, survey(network, IMAGE).groups, {"a": 5})
    assert torch.equal(network(IMAGE), before)
    assert [each for each, _ in network.named_parameters()] == names


def test_outputs_in_a_dataclass_stay_whole() -> None:
    """What a network returns is found in any container."""

    @dataclass
    class Both:
        logits: torch.Tensor
        features: torch.Tensor

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = conv(3, 8), conv(8, 12), nn.Linear(12, 4)

        def forward(self, x: torch.Tensor) -> Both:
            features = self.second(torch.relu(self.first(x)))
            return Both(self.head(features.mean((2, 3))), features)

    found = survey(Network(), IMAGE)
    assert [group.name for group in found.groups] == ["first"] and set(found.whole) == {"second", "head"}
